"""Runs tasks in several processes on this machine.

    with closing(run_in_processes(work, tasks, processes=2)) as results:
        for index, result in results:
            ...

Each process has its own pipe, runs one task at a time, and exits when its pipe closes. If the
parent process dies, its workers therefore exit no later than their next report.
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
    """A worker process.

    Attributes:
        process: The process.
        pipe: The pipe to it.
        is_ready: Whether it has received the work.
        index: The index of the task in progress; None if the worker is idle.
    """

    process: subprocess.Popen[bytes]
    pipe: Connection
    is_ready: bool = False
    index: int | None = None

    @classmethod
    def start(cls, environment: Mapping[str, str]) -> _Worker:
        """Starts a process, which sends `READY` when it can receive the work."""
        ours, theirs = Pipe()
        number = theirs.fileno()
        # Ctrl-C reaches all processes of a terminal; the parent process ends the workers.
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
        """Sends the work or a task. If the process has died, the next `receive` returns None."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def receive(self) -> tuple[str, Any] | None:
        """Receives a message; returns None if the process has died."""
        try:
            message: tuple[str, Any] = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self) -> int:
        """Kills the process if it is still running, and returns its exit status."""
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
    """Runs tasks in several processes; see `RunTasks`.

    If the caller closes the iterator or is interrupted, all processes are killed.

    Args:
        work: Performs a task. Each process gets one copy and uses it for all of its tasks, so
            that data loaded for one task can be reused for the next.
        tasks: The tasks, started in this order.
        on_report: Receives the tasks' progress reports.
        processes: The maximum number of processes.
        environment: Environment variables to set in addition to those of this process.
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
    """Puts the task of a process that has died back into the queue.

    Raises:
        TaskError: The task has been started too often, or the process died before it was ready.
    """
    status, index = worker.end(), worker.index
    if not worker.is_ready:
        raise TaskError(f"a worker process died before it was ready (exit status {status})")
    if index is None:
        return
    if tries[index] >= MAX_TRIES:
        raise TaskError(
            f"the worker process of task {index + 1} died {MAX_TRIES} times (exit status {status}; "
            "-9 usually means that it ran out of memory)"
        )
    waiting.appendleft(index)
