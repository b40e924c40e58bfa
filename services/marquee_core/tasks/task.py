"""The interface of tasks and of the functions that run them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A")
R = TypeVar("R")

MAX_TRIES = 3
"""The maximum number of attempts for a task whose process dies."""

Report: TypeAlias = Callable[[Any], None]
"""Sends a progress report to the process that started the task."""

OnReport: TypeAlias = Callable[[int, Any], None]
"""Receives the index of a task and a progress report."""


def ignore_report(index: int, value: Any) -> None:
    """Ignores a progress report."""


class TaskError(RuntimeError):
    """A task failed: its process died repeatedly, or its exception cannot be pickled."""


class Work(Protocol[A_contra, R_co]):
    """Performs tasks, one after another, in another process. Work and tasks must be picklable."""

    def __call__(self, task: A_contra, report: Report, /) -> R_co:
        """Performs a task.

        Args:
            task: The task.
            report: Sends a progress report.
        """


class RunTasks(Protocol):
    """Runs tasks; implemented by `run_in_processes` and `run_on_ray`."""

    def __call__(
        self, work: Work[A, R], tasks: Sequence[A], on_report: OnReport
    ) -> Generator[tuple[int, R], None, None]:
        """Runs all tasks, and yields the index and the result of each as it finishes.

        Raises:
            TaskError: A worker process died repeatedly.
            Exception: The exception that a task raised. The other tasks are then abandoned.
        """
