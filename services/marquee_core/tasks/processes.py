"""Runs tasks in processes of this machine.

    with closing(run_in_processes(work, tasks, processes=2)) as results:
        for place, result in results:
            ...

Each process has a pipe of its own, takes one task at a time, and ends when its pipe closes. So none
outlives the process that started it by more than the time between two reports, however that ends.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from types import MappingProxyType
from typing import Any

from marquee_core.tasks.task import MAX_TRIES, A, OnReport, R, TaskError, Work, ignore

# A forked process would inherit locks that other threads hold; a spawned one starts clean.
_SPAWN = multiprocessing.get_context("spawn")
_REPORT, _RESULT, _ERROR = "report", "result", "error"


@dataclass
class _Worker:
    """A process, and the place of the task that it does; None if it does none."""

    process: SpawnProcess
    pipe: Connection
    place: int | None = None

    @classmethod
    def start(cls, work: Work[Any, Any], environment: Mapping[str, str]) -> _Worker:
        """Starts a process that waits for tasks."""
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, work), daemon=True)
        # Ctrl-C reaches all processes of a terminal. The one that runs the tasks ends the others.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        before = dict(os.environ)
        try:
            os.environ.update(environment)
            process.start()
        finally:
            for name in environment.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        theirs.close()
        return cls(process, ours)

    def give(self, place: int, task: object) -> None:
        """Gives the process a task. If it has died, `receive` notices."""
        self.place = place
        with suppress(BrokenPipeError):
            self.pipe.send(task)

    def receive(self) -> tuple[str, Any] | None:
        """Reads a message; None if the process has died."""
        try:
            message: tuple[str, Any] = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return message

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def run_in_processes(
    work: Work[A, R],
    tasks: Sequence[A],
    on_report: OnReport = ignore,
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
                workers.append(_Worker.start(work, environment))
            for worker in workers:
                if worker.place is None and waiting:
                    place = waiting.popleft()
                    tries[place] += 1
                    worker.give(place, tasks[place])
            ready = multiprocessing.connection.wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                message, done = worker.receive(), worker.place
                if message is None:
                    workers.remove(worker)
                    _put_back(worker, tries, waiting)
                elif done is None:
                    continue
                elif message[0] == _REPORT:
                    on_report(done, message[1])
                elif message[0] == _ERROR:
                    raise message[1]
                else:
                    worker.place = None
                    left -= 1
                    yield done, message[1]
    finally:
        for worker in workers:
            worker.kill()


def _put_back(worker: _Worker, tries: Sequence[int], waiting: deque[int]) -> None:
    """Lets the task of a process that has died be begun again.

    Raises:
        TaskError: It has been begun too often.
    """
    worker.process.join()
    code, place = worker.process.exitcode, worker.place
    worker.kill()
    if place is None:
        return
    if tries[place] >= MAX_TRIES:
        raise TaskError(
            f"task {place + 1} ended its process {MAX_TRIES} times (exit status {code}; -9 is "
            "usually too little memory)"
        )
    waiting.appendleft(place)


def _serve(pipe: Connection, work: Work[Any, Any]) -> None:
    """Does tasks until the pipe closes."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pipe.recv()
            try:
                answer = (_RESULT, work(task, lambda value: pipe.send((_REPORT, value))))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                answer = (_ERROR, _sendable(error))
            pipe.send(answer)


def _sendable(error: Exception) -> Exception:
    """The error, or one with its text if it does not survive the way to another process."""
    with suppress(Exception):
        if str(ForkingPickler.loads(ForkingPickler.dumps(error))) == str(error):
            return error
    return TaskError(f"{type(error).__name__}: {error}")
