"""A process that forks a new process for each trial of a release.

It is forked when the server starts, before the server imports its libraries and starts threads, and
therefore takes little memory. For trials it forks a host, which imports the libraries and forks the
process of each trial; several trials, as at the start of a standalone server, share the imports.
The host ends once there has been no trial for a while, because it takes as much memory as a server
without a release.

A request says whether it may run only while CPUs are idle (`is_idle`). Its host imports the
libraries under the same policy, because imports take longer than many trials and would delay calls.
Unprivileged processes cannot leave the policy SCHED_IDLE, so a request with the other policy gets a
new host.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
_PRIORITY = 5
# The host of trials ends after this many seconds without one.
_IDLE_S = 10.0

ENDED = "the process that tries releases has ended"

Load = Callable[[dict[str, Any]], dict[str, Any]]


def fork(prepare: Callable[[], Load]) -> tuple[int, socket.socket]:
    """Forks the process. Must be called before the server starts threads or opens sockets.

    Args:
        prepare: Imports the libraries in the host, and returns the function that answers a request
            in the process that is forked for it.

    Returns:
        The id of the process, and the connection to it.

    Raises:
        OSError: The process cannot be started.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            _end_with_parent(parent)
            _serve(theirs, prepare)
        finally:
            os._exit(0)
    theirs.close()
    return pid, ours


def _serve(connection: socket.socket, prepare: Callable[[], Load]) -> None:
    """Passes requests to the host, and its answers to the server."""
    signal.set_wakeup_fd(-1)  # Detach from the server's event loop.
    # This process ends only when the server ends.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    host: _Host | None = None
    # Without a buffer, `select` sees every request that has not been read.
    with connection.makefile("rb", buffering=0) as stream:
        while True:
            if host is not None and not select.select([connection], [], [], _IDLE_S)[0]:
                host.end()
                host = None
                continue
            request = stream.readline()
            if not request:
                return
            is_idle = bool(json.loads(request)["is_idle"])
            if host is not None and host.is_idle != is_idle:
                host.end()
                host = None
            if host is None:
                host = _Host(connection, prepare, is_idle)
            for answer in host.request(request):
                connection.sendall(answer)
            if host.has_ended:
                host = None


class _Host:
    """A process with all libraries, which forks the process of each trial."""

    def __init__(self, server: socket.socket, prepare: Callable[[], Load], is_idle: bool) -> None:
        """Forks the process.

        Args:
            server: The connection to the server, which is closed in the process.
            prepare: Imports the libraries, and returns the function that answers a request.
            is_idle: Whether the process runs only while CPUs are idle.
        """
        self.has_ended = False
        self.is_idle = is_idle
        self._connection, theirs = socket.socketpair()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._connection.close()
            server.close()
            try:
                _end_with_parent(parent)
                _give_way(is_idle)
                _fork_for_each(theirs, prepare())
            finally:
                os._exit(0)
        theirs.close()
        self._answers = self._connection.makefile("rb")

    def request(self, request: bytes) -> Iterator[bytes]:
        """Yields lines with the id of the host, that of the forked process, and its answer.

        If the host has ended, its answer comes next. Only answers have an `error`, which is empty
        after success.
        """
        yield json.dumps({"pid": self._pid}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            self._connection.sendall(request)
        for _ in range(2):
            line = b""
            # A host that is killed before it reads the request resets the connection.
            with contextlib.suppress(ConnectionResetError):
                line = self._answers.readline()
            if not line:
                self.end()
                yield json.dumps({"error": ENDED, "transient": True}).encode() + b"\n"
                return
            yield line

    def end(self) -> None:
        """Ends the process."""
        if not self.has_ended:
            self.has_ended = True
            self._answers.close()
            self._connection.close()
            os.waitpid(self._pid, 0)


def _fork_for_each(connection: socket.socket, load: Load) -> None:
    """Forks once for each request, and returns the answers."""
    with connection.makefile("rwb") as stream:
        for line in stream:
            read_end, write_end = os.pipe()
            host = os.getpid()
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                connection.close()
                try:
                    _end_with_parent(host)
                    with os.fdopen(write_end, "wb") as output:
                        output.write(json.dumps(load(json.loads(line))).encode())
                finally:
                    os._exit(0)
            os.close(write_end)
            stream.write(json.dumps({"pid": pid}).encode() + b"\n")
            stream.flush()
            with os.fdopen(read_end, "rb") as source:
                answer = source.read()
            _, status = os.waitpid(pid, 0)
            if not answer:
                ended = os.waitstatus_to_exitcode(status)
                error = f"the process that loaded it on trial ended with {ended}"
                answer = json.dumps({"error": error}).encode()
            stream.write(answer + b"\n")
            stream.flush()


def _give_way(is_idle: bool) -> None:
    """Lowers the priority of this process, so that it delays the server's calls less."""
    os.nice(_PRIORITY)
    if is_idle and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _end_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when its parent ends for any reason."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
