"""Estimates the remaining time of a training run.

A model is fitted more than once: first with validation ratings held out, then again on more
ratings. The estimate of a later fit is the measured time of the latest earlier one, scaled by the
expected times of both. A first fit is estimated by its expected time, scaled by the ratio of
measured to expected time of the steps so far or, before the first step, by the measured speed of
the machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# The weight of the measured machine speed against the steps of a run, in expected seconds.
_PRIOR_S = 5.0


@dataclass(frozen=True)
class PlannedStep:
    """A step of a training run.

    Attributes:
        name: The name by which training reports its start.
        kind: What the step computes, such as the name of the model that it fits.
        ratings: The number of ratings that it processes. The times of steps of one kind without
            expected times are assumed to be proportional to it.
        is_search: Whether it also chooses epochs or hyperparameters. If its kind has no expected
            times, its time is an upper bound for steps that use the choice.
        expected_s: The seconds that it is expected to take on the reference machine; None if
            unknown.
    """

    name: str
    kind: str
    ratings: int
    is_search: bool = False
    expected_s: float | None = None


@dataclass(frozen=True)
class Remaining:
    """An estimate of the remaining time.

    Attributes:
        seconds: The estimate.
        is_bound: Whether it is an upper bound, because part of it scales the time of a search, or
            because of a limit on the time of the run.
        is_rough: Whether part of it is for steps that this run has not measured yet.
    """

    seconds: float
    is_bound: bool
    is_rough: bool = False

    def __str__(self) -> str:
        """The estimate in words, rounded to its precision."""
        words = "roughly" if self.is_rough else "at most" if self.is_bound else "about"
        return f"{words} {duration(_rounded(self.seconds))} left"


class Estimator:
    """Measures the steps of a run, and estimates the remaining ones from them."""

    def __init__(
        self,
        plan: Sequence[PlannedStep],
        clock: Callable[[], float] = time.monotonic,
        slowdown: float = 1.0,
        limit_s: float | None = None,
    ) -> None:
        """Creates an estimator.

        Args:
            plan: All steps of the run, in order.
            clock: Returns the time in seconds.
            slowdown: How many times longer than expected this machine takes, measured before the
                first step.
            limit_s: Seconds that the run may take from now on, because steps are skipped that do
                not fit; None without a limit.
        """
        self._left = list(plan)
        self._clock = clock
        self._slowdown = slowdown
        self._done = 0
        self._current: PlannedStep | None = None
        self._started = clock()
        self._end = math.inf if limit_s is None else clock() + limit_s
        self._measured: dict[str, tuple[float, PlannedStep]] = {}
        # Over all measured steps with expected times.
        self._spent_s = self._expected_s = 0.0

    @property
    def steps(self) -> int:
        """The number of steps of the run, without those that were skipped."""
        return self._done + len(self._left)

    @property
    def position(self) -> int:
        """The number of the current step, from 1; 0 before the first and in an unplanned step."""
        return self._done if self._current is not None else 0

    def start(self, name: str) -> None:
        """Ends the current step and starts another.

        Args:
            name: Its name. Planned steps before it are dropped as skipped; if one of them is the
                first fit of a model, its later fits are dropped too.
        """
        self.finish()
        positions = [position for position, step in enumerate(self._left) if step.name == name]
        if positions:
            skipped, (self._current, *rest) = self._left[: positions[0]], self._left[positions[0] :]
            given_up = {step.kind for step in skipped if step.is_search}
            self._left = [step for step in rest if step.kind not in given_up]
            self._done += 1
        self._started = self._clock()

    def finish(self) -> float:
        """Ends the current step.

        Returns:
            The seconds since it started.
        """
        seconds = self._clock() - self._started
        if self._current is not None:
            self._measured[self._current.kind] = (seconds, self._current)
            if self._current.expected_s is not None:
                self._spent_s += seconds
                self._expected_s += self._current.expected_s
            self._current = None
        return seconds

    def remaining(self) -> Remaining | None:
        """The remaining time; None if it cannot be estimated for one of the remaining steps."""
        total, is_bound, is_rough = 0.0, False, False
        for step in [*self._left, *([self._current] if self._current else [])]:
            expected = self._expected(step)
            if expected is None:
                return None
            if step is self._current:
                expected = max(0.0, expected - (self._clock() - self._started))
            total += expected
            measured = self._measured.get(step.kind)
            is_rough |= measured is None
            is_bound |= measured is not None and step.expected_s is None and measured[1].is_search
        allowed = max(0.0, self._end - self._clock())
        if total > allowed:
            return Remaining(allowed, is_bound=True)
        return Remaining(total, is_bound, is_rough)

    def _expected(self, step: PlannedStep) -> float | None:
        """The seconds that the whole step takes; None if it cannot be estimated."""
        if step.kind in self._measured:
            seconds, measured = self._measured[step.kind]
            if step.expected_s is not None and measured.expected_s:
                return seconds * step.expected_s / measured.expected_s
            return seconds * step.ratings / max(1, measured.ratings)
        if step.expected_s is None:
            return None
        # The measurement before the first step has the weight of a few seconds of steps, so that
        # short first steps, which mostly import and compile, do not dominate the estimate.
        spent_s = self._spent_s + _PRIOR_S * self._slowdown
        return step.expected_s * spent_s / (self._expected_s + _PRIOR_S)


def duration(seconds: float) -> str:
    """A duration as minutes and seconds, or as hours, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _rounded(seconds: float) -> float:
    """Rounds up to 5 s, or to 30 s from 5 minutes on; estimates are no more precise than that."""
    step = 5 if seconds < 300 else 30
    return step * -(-seconds // step)
