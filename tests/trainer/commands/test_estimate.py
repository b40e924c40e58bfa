"""The estimate of the remaining time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.commands.estimate import Estimator, PlannedStep, Remaining, duration
from toy.clock import Clock

PLAN = [
    PlannedStep("fit a", "a", 100, is_search=True),
    PlannedStep("fit b", "b", 100, is_search=True),
    PlannedStep("refit a", "a", 120),
    PlannedStep("refit b", "b", 120),
    PlannedStep("fit on all: a", "a", 150),
    PlannedStep("fit on all: b", "b", 150),
]


def run(clock: Clock, estimator: Estimator, steps: dict[str, float]) -> None:
    """Run steps, each with its duration in seconds."""
    for name, seconds in steps.items():
        estimator.start(name)
        clock.now += seconds


def test_without_expected_durations_each_model_must_be_fitted_first() -> None:
    """The duration of a user-defined model is unknown before its first fit."""
    clock = Clock()
    estimator = Estimator(PLAN, clock)
    assert estimator.remaining() is None
    run(clock, estimator, {"fit a": 10, "fit b": 20})
    assert estimator.remaining() is None
    estimator.start("refit a")
    assert estimator.remaining() is not None


EXPECTED = [
    PlannedStep("fit a", "a", 100, is_search=True, expected_s=10),
    PlannedStep("fit b", "b", 100, is_search=True, expected_s=20),
    PlannedStep("refit a", "a", 120, expected_s=1),
    PlannedStep("refit b", "b", 120, expected_s=2),
]


def test_expected_durations_give_an_estimate_from_the_start() -> None:
    """The estimate first uses the speed of the machine, then the steps so far; both are rough."""
    clock = Clock()
    estimator = Estimator(EXPECTED, clock, slowdown=3.0)
    assert estimator.remaining() == Remaining(99.0, is_bound=False, is_rough=True)
    run(clock, estimator, {"fit a": 20})
    estimator.start("fit b")
    left = estimator.remaining()
    assert left is not None
    assert left.is_rough
    # 10 expected seconds took 20; the measurement of 3 counts for 5 more.
    slowdown = (20 + 3 * 5) / (10 + 5)
    assert left.seconds == pytest.approx(2 * 1 + slowdown * (20 + 2))
    clock.now += 40
    estimator.start("refit a")
    assert estimator.remaining() == Remaining(2 * 1 + 2 * 2, is_bound=False)


def test_a_refit_is_estimated_as_a_fraction_of_its_search() -> None:
    """The refit is expected to take a fraction of the measured search."""
    clock = Clock()
    estimator = Estimator(EXPECTED, clock)
    run(clock, estimator, {"fit a": 30, "fit b": 20, "refit a": 0})
    estimator.start("refit b")
    assert str(estimator.remaining()) == "about 0:05 left"


def test_a_skipped_model_is_no_longer_counted() -> None:
    """Neither its first fit nor its refit is counted, and step numbers stay consecutive."""
    clock = Clock()
    estimator = Estimator(EXPECTED, clock)
    estimator.start("fit b")
    assert (estimator.position, estimator.steps) == (1, 2)
    estimator.start("refit b")
    assert (estimator.position, estimator.steps) == (2, 2)


def test_a_limited_run_takes_no_longer_than_its_limit() -> None:
    """With a budget, the models for which there is no time must not count."""
    clock = Clock()
    estimator = Estimator(EXPECTED, clock, limit_s=25)
    assert str(estimator.remaining()) == "at most 0:25 left"
    run(clock, estimator, {"fit a": 12})
    estimator.start("fit b")
    assert estimator.remaining() == Remaining(13.0, is_bound=True)
    clock.now += 10
    estimator.start("refit a")
    left = estimator.remaining()
    assert left is not None
    assert left.seconds == pytest.approx(12 / 10 + 10 / 20 * 2)
    clock.now += 10
    assert estimator.remaining() == Remaining(0.0, is_bound=True)


def test_measured_durations_are_scaled_by_the_number_of_ratings() -> None:
    """A first fit bounds the next ones, and the refit replaces the bound with an estimate."""
    clock = Clock()
    estimator = Estimator(PLAN, clock)
    run(clock, estimator, {"fit a": 10, "fit b": 20})
    estimator.start("refit a")
    first = estimator.remaining()
    assert first is not None
    assert first.is_bound
    assert first.seconds == pytest.approx((10 + 20) * 1.2 + (10 + 20) * 1.5)
    clock.now += 2.4
    run(clock, estimator, {"refit b": 4.8})
    estimator.start("fit on all: a")
    second = estimator.remaining()
    assert second is not None
    assert not second.is_bound
    assert second.seconds == pytest.approx((2.4 + 4.8) * 1.25)
    clock.now += 1.0
    third = estimator.remaining()
    assert third is not None
    assert third.seconds == pytest.approx(second.seconds - 1.0)


def test_a_slow_step_does_not_shorten_the_remaining_steps() -> None:
    """The current step then counts as nearly finished."""
    clock = Clock()
    estimator = Estimator(PLAN, clock)
    run(clock, estimator, {"fit a": 10, "fit b": 20, "refit a": 10, "refit b": 500})
    left = estimator.remaining()
    assert left is not None
    assert left.seconds == pytest.approx(10 * 1.25 + 20 * 1.5)


def test_skipped_steps_are_removed_from_the_estimate() -> None:
    """A model that is skipped during a run is removed from the estimate."""
    clock = Clock()
    estimator = Estimator(PLAN, clock)
    run(clock, estimator, {"fit a": 10, "fit b": 20, "fit on all: b": 0})
    left = estimator.remaining()
    assert left is not None
    assert left.seconds == pytest.approx(20 * 1.5)


@given(st.lists(st.floats(0.1, 1e4), min_size=6, max_size=6))
def test_the_estimate_is_exact_if_durations_are_proportional_to_ratings(times: list[float]) -> None:
    """If refits take as long as their numbers of ratings predict, the estimate has no error."""
    clock = Clock()
    estimator = Estimator(PLAN, clock)
    a, b = times[:2]
    steps = {"fit a": a, "fit b": b, "refit a": 1.2 * a, "refit b": 1.2 * b}
    run(clock, estimator, steps)
    estimator.start("fit on all: a")
    left = estimator.remaining()
    assert left is not None
    assert left.seconds == pytest.approx(1.5 * (a + b))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3600, "1:00:00"), (7325, "2:02:05")]
)
def test_durations_are_formatted_like_a_clock(seconds: float, text: str) -> None:
    """Hours are shown only if there are any."""
    assert duration(seconds) == text


def test_an_estimate_is_rounded_up_to_its_precision() -> None:
    """The precision is five seconds, or half a minute above five minutes."""
    assert str(Remaining(61.2, False)) == "about 1:05 left"
    assert str(Remaining(301.0, True)) == "at most 5:30 left"
    assert str(Remaining(3.0, False, is_rough=True)) == "roughly 0:05 left"
