"""Runs tasks in processes of this machine.

    with closing(run_in_processes(work, tasks, processes=2)) as results:
        for index, result in results:
            ...

Each process has a pipe of its own, takes one task at a time, and ends when its pipe closes. So none
outlives the process that started it by more than the time between two reports, however that ends.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from types import MappingProxyType
from typing import Any

from marquee_core.tasks.task import MAX_TRIES, A, OnReport, R, TaskError, Work, ignore_report
from marquee_core.tasks.worker import ERROR, READY, REPORT


@dataclass
class _Worker:
    """A process that does tasks.

    Attributes:
        process: The process.
        pipe: The pipe to it.
        is_ready: Whether it has been sent the work.
        index: The index of the task that it does; None if it does none.
    """

    process: subprocess.Popen[bytes]
    pipe: Connection
    is_ready: bool = False
    index: int | None = None

    @classmethod
    def start(cls, environment: Mapping[str, str]) -> _Worker:
        """Starts a process; it sends a message when it is ready."""
        ours, theirs = Pipe()
        number = theirs.fileno()
        # Ctrl-C reaches all processes of a terminal. The one that runs the tasks ends the others.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process = subprocess.Popen(  # noqa: S603 # nosec B603
                [sys.executable, "-P", "-m", "marquee_core.tasks.worker", str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        theirs.close()
        return cls(process, ours)

    def send(self, message: object) -> None:
        """Sends the work or a task. If the process has died, `receive` notices."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def receive(self) -> tuple[str, Any] | None:
        """Reads a message; None if the process has died."""
        try:
            message: tuple[str, Any] = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self) -> int:
        """Ends the process at once, unless it has ended; returns its exit status."""
        self.pipe.close()
        self.process.kill()
        return self.process.wait()


def run_in_processes(
    work: Work[A, R],
    tasks: Sequence[A],
    on_report: OnReport = ignore_report,
    *,
    processes: int,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Generator[tuple[int, R], None, None]:
    """Does tasks in several processes; see `RunTasks`.

    If the caller closes the iterator or is interrupted, all processes are ended at once.

    Args:
        work: Does a task. Each process gets a copy, and keeps what the copy loads.
        tasks: The tasks; the earlier ones begin first.
        on_report: Receives what tasks report.
        processes: The maximum number of processes.
        environment: Environment variables that differ from those of this process.
    """
    waiting = deque(range(len(tasks)))
    tries = [0] * len(tasks)
    workers: list[_Worker] = []
    left = len(tasks)
    try:
        while left:
            while len(workers) < min(processes, left):
                workers.append(_Worker.start(environment))
            for worker in workers:
                if worker.is_ready and worker.index is None and waiting:
                    worker.index = waiting.popleft()
                    tries[worker.index] += 1
                    worker.send(tasks[worker.index])
            ready = multiprocessing.connection.wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                message, index = worker.receive(), worker.index
                if message is None:
                    workers.remove(worker)
                    _requeue(worker, tries, waiting)
                    continue
                kind, value = message
                if kind == READY:
                    worker.is_ready = True
                    worker.send(work)
                elif kind == ERROR:
                    raise value
                elif index is None:
                    continue
                elif kind == REPORT:
                    on_report(index, value)
                else:
                    worker.index = None
                    left -= 1
                    yield index, value
    finally:
        for worker in workers:
            worker.end()


def _requeue(worker: _Worker, tries: Sequence[int], waiting: deque[int]) -> None:
    """Lets the task of a process that has died be begun again.

    Raises:
        TaskError: It has been begun too often, or the process has died before it could begin.
    """
    status, index = worker.end(), worker.index
    if not worker.is_ready:
        raise TaskError(f"a process for tasks ended before it began (exit status {status})")
    if index is None:
        return
    if tries[index] >= MAX_TRIES:
        raise TaskError(
            f"task {index + 1} ended its process {MAX_TRIES} times (exit status {status}; -9 is "
            "usually too little memory)"
        )
    waiting.appendleft(index)
