"""What tasks are, however they are run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A")
R = TypeVar("R")

MAX_TRIES = 3
"""How often a task is begun whose process dies; one that kills its process would never end."""

Report: TypeAlias = Callable[[Any], None]
"""Tells the process that started a task how far the task has come."""

OnReport: TypeAlias = Callable[[int, Any], None]
"""Receives the index of a task and what it reports."""


def ignore_report(index: int, value: Any) -> None:
    """Returns the `OnReport` of whoever wants no reports."""


class TaskError(RuntimeError):
    """A task cannot be done: its process has died again and again, or its error cannot be sent."""


class Work(Protocol[A_contra, R_co]):
    """Does tasks, one after another, in a process of its own. It is sent there, as are tasks."""

    def __call__(self, task: A_contra, report: Report, /) -> R_co:
        """Does one task."""


class RunTasks(Protocol):
    """Runs tasks; `run_in_processes` and `run_on_ray` are two ways to do so."""

    def __call__(
        self, work: Work[A, R], tasks: Sequence[A], on_report: OnReport
    ) -> Generator[tuple[int, R], None, None]:
        """Does all tasks, and yields the index and the result of each as it ends.

        Raises:
            TaskError: A task cannot be done.
            Exception: What a task has raised. The other tasks are then given up.
        """
