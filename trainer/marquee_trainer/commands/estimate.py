"""Estimates how much time the rest of a training run takes.

A model is fitted more than once: first with validation ratings held out, then again on more
ratings. The estimate of a later fit is the measured time of the latest earlier one, scaled by the
numbers of ratings. A first fit cannot be estimated, so there is no estimate before each model has
been fitted once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedStep:
    """A step of a training run.

    Attributes:
        name: The name by which training reports its start.
        kind: What the step computes, such as the name of the model that it fits. The times of
            steps of one kind are proportional to their numbers of ratings.
        ratings: The number of ratings that it works on.
        is_search: Whether it also chooses epochs or hyperparameters. Its time is then an upper
            bound for steps that use the choice.
    """

    name: str
    kind: str
    ratings: int
    is_search: bool = False


@dataclass(frozen=True)
class Remaining:
    """An estimate of the remaining time.

    Attributes:
        seconds: The estimate.
        is_bound: Whether part of it is an upper bound, because it scales the time of a search.
    """

    seconds: float
    is_bound: bool

    def __str__(self) -> str:
        """The estimate in words, rounded to what it can promise."""
        return f"{'at most' if self.is_bound else 'about'} {duration(_rounded(self.seconds))} left"


class Estimator:
    """Measures the steps of a run, and estimates the rest from them."""

    def __init__(
        self, plan: Sequence[PlannedStep], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Creates an estimator.

        Args:
            plan: All steps of the run, in order.
            clock: Returns the time in seconds.
        """
        self._plan = list(plan)
        self._clock = clock
        self._next = 0
        self._current: PlannedStep | None = None
        self._started = clock()
        self._measured: dict[str, tuple[float, PlannedStep]] = {}

    @property
    def steps(self) -> int:
        """The number of steps of the run."""
        return len(self._plan)

    @property
    def place(self) -> int:
        """The number of the current step, from 1; 0 before the first and in an unplanned step."""
        return self._next if self._current is not None else 0

    def start(self, name: str) -> None:
        """Ends the current step and starts another.

        Args:
            name: Its name. Planned steps that it skips are not expected any more.
        """
        self.finish()
        places = [
            place for place in range(self._next, len(self._plan)) if self._plan[place].name == name
        ]
        if places:
            self._current = self._plan[places[0]]
            self._next = places[0] + 1
        self._started = self._clock()

    def finish(self) -> float:
        """Ends the current step.

        Returns:
            The seconds since it started.
        """
        seconds = self._clock() - self._started
        if self._current is not None:
            self._measured[self._current.kind] = (seconds, self._current)
            self._current = None
        return seconds

    def remaining(self) -> Remaining | None:
        """The estimate of the remaining time; None if a remaining step has no measured one yet."""
        total, is_bound = 0.0, False
        for step in self._plan[self._next :]:
            expected = self._expected(step)
            if expected is None:
                return None
            total += expected
            is_bound |= self._measured[step.kind][1].is_search
        if self._current is not None:
            expected = self._expected(self._current)
            if expected is None:
                return None
            total += max(0.0, expected - (self._clock() - self._started))
            is_bound |= self._measured[self._current.kind][1].is_search
        return Remaining(total, is_bound)

    def _expected(self, step: PlannedStep) -> float | None:
        """The seconds that the step takes as a whole; None if none of its kind was measured."""
        if step.kind not in self._measured:
            return None
        seconds, measured = self._measured[step.kind]
        return seconds * step.ratings / max(1, measured.ratings)


def duration(seconds: float) -> str:
    """A duration as minutes and seconds, or as hours, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _rounded(seconds: float) -> float:
    """Rounds up to 5 s, or to 30 s from 5 minutes on: an estimate is no more precise."""
    step = 5 if seconds < 300 else 30
    return step * -(-seconds // step)
