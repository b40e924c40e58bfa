"""Ends a command soon after Ctrl-C or SIGTERM, even in the middle of a long computation.

Python runs signal handlers between two instructions of the main thread. A computation in
TensorFlow, Numba or LAPACK is a single instruction and may take minutes. It must release the global
interpreter lock during that time, as Numba does with `nogil` and NumPy does but `scipy.linalg` does
not. A second thread can then run: it is notified of the signal through a socket that the
interpreter's C code writes to, and ends the process if the main thread does not finish in time.
While TensorFlow's own Python code runs, it ends the process immediately, because an exception that
unwinds a call into TensorFlow's C++ code can crash the process.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

import click

EXIT_CODE = 130
# Including the time that the process takes to exit, this is less than two seconds.
GRACE_S = 1.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The store removes its own partial files when it is interrupted, so it is never killed while
# writing.
_STORE = os.path.join("marquee_core", "release", "store.py")
_STORE_POLL_S = 0.05
_TENSORFLOW = tuple(f"{os.sep}{name}{os.sep}" for name in ("tensorflow", "keras"))
# Makes the watcher end the process immediately; no signal has this number.
_NOW = b"\0"
_SHOW_CURSOR = "\x1b[?25h"

_active: list[InterruptHandler] = []
_cleanups: list[Callable[[], None]] = []


class InterruptHandler:
    """A context in which SIGINT and SIGTERM raise `KeyboardInterrupt` and end the process in time.

    Temporary files go to a separate folder, which is removed however the process ends. Only the
    main thread can handle signals; in other threads the context manages that folder only.

    Attributes:
        outcome: A sentence on what the command has done so far, shown when it is interrupted.
    """

    def __init__(self, outcome: str = "", grace_s: float | None = GRACE_S) -> None:
        """Creates the context.

        Args:
            outcome: The sentence after "Interrupted."; `set_outcome` replaces it.
            grace_s: Seconds that the main thread has to finish after a signal before the process is
                ended; None for no limit.
        """
        self.outcome = outcome
        self._grace_s = grace_s
        self._interrupted = threading.Event()
        self._reporting = threading.Lock()
        self._reported = False

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal arrived."""
        return self._interrupted.is_set()

    def report(self) -> None:
        """Reports once that the command was interrupted."""
        with self._reporting:
            if self._reported:
                return
            self._reported = True
        click.echo(f"Interrupted. {self.outcome}".rstrip(), err=True)

    def exit(self) -> Exception:
        """Removes temporary files and ends the process immediately if a signal arrived.

        A regular exit would first tear down TensorFlow and all loaded modules, which may take
        seconds.

        Returns:
            If no signal arrived, an exception that makes the command exit with the same code.
        """
        if not self.was_interrupted:
            return click.exceptions.Exit(EXIT_CODE)
        self._remove_folders()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)

    def __enter__(self) -> Self:
        self._tempdir = tempfile.tempdir
        self._folder = Path(tempfile.mkdtemp(prefix="marquee-"))
        tempfile.tempdir = str(self._folder)
        _active.append(self)
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._stderr = os.dup(2)
            self._receiver, self._sender = socket.socketpair()
            self._sender.setblocking(False)
            self._handlers = {number: signal.signal(number, self._raise) for number in _SIGNALS}
            self._wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
            self._watcher = threading.Thread(target=self._watch, daemon=True, name="interrupt")
            self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _active.remove(self)
        tempfile.tempdir = self._tempdir
        shutil.rmtree(self._folder, ignore_errors=True)
        # After an interrupt the watcher stays, because the interpreter may take a long time to
        # exit.
        if self._is_main and (error is None or not self.was_interrupted):
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._sender.close()
            self._watcher.join()
            self._receiver.close()
            os.close(self._stderr)

    def _raise(self, _number: int, frame: FrameType | None) -> None:
        # A second signal must not interrupt the clean-up after the first.
        if self._interrupted.is_set():
            return
        self._interrupted.set()
        if self._grace_s is not None and _is_unsafe_to_unwind(frame):
            self._sender.send(_NOW)
            return
        raise KeyboardInterrupt

    def _watch(self) -> None:
        """Waits for a signal, and ends the process if it outlives the grace period."""
        while received := self._receiver.recv(1):
            if received[0] in _SIGNALS:
                break
        if not received or self._grace_s is None:
            return
        deadline = time.monotonic() + self._grace_s
        while (left := deadline - time.monotonic()) > 0:
            self._receiver.settimeout(left)
            try:
                received = self._receiver.recv(1)
                if not received:
                    return  # The command ended by itself.
                if received == _NOW:
                    break
            except TimeoutError:
                break
        while _main_thread_is_in_store():
            time.sleep(_STORE_POLL_S)
        self._end_process()

    def _end_process(self) -> NoReturn:
        # The main thread may have redirected stderr or hidden the cursor.
        os.dup2(self._stderr, 2)
        if sys.stderr.isatty():
            sys.stderr.write(f"{_SHOW_CURSOR}\r\x1b[K")
        self.report()
        sys.stderr.flush()
        # The main thread is still running, and would report errors about the removed files.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self._remove_folders()
        for cleanup in _cleanups:
            cleanup()
        os._exit(EXIT_CODE)

    def _remove_folders(self) -> None:
        for context in (*_active, self):
            shutil.rmtree(context._folder, ignore_errors=True)


@contextmanager
def run_on_forced_exit(cleanup: Callable[[], None]) -> Iterator[None]:
    """Calls a quick function if the process is ended while the block runs.

    The block must do the same work itself when it exits. Another thread may call the function.
    """
    _cleanups.append(cleanup)
    try:
        yield
    finally:
        _cleanups.remove(cleanup)


def set_outcome(outcome: str) -> None:
    """Replaces the sentence that an interrupted command reports on what it has done so far."""
    for context in _active:
        context.outcome = outcome


def _main_thread_is_in_store() -> bool:
    ident = threading.main_thread().ident
    frame = None if ident is None else sys._current_frames().get(ident)
    return any(name.endswith(_STORE) for name in _files_of(frame))


def _is_unsafe_to_unwind(frame: FrameType | None) -> bool:
    """Whether a call into TensorFlow is running other than one made by the store."""
    names = list(_files_of(frame))
    in_tensorflow = any(part in name for name in names for part in _TENSORFLOW)
    return in_tensorflow and not any(name.endswith(_STORE) for name in names)


def _files_of(frame: FrameType | None) -> Iterator[str]:
    """The source files of a frame and of its callers."""
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back
