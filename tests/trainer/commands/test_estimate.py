"""The estimate of the remaining time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.commands.estimate import Estimator, PlannedStep, Remaining, duration

PLAN = [
    PlannedStep("fit a", "a", 100, is_search=True),
    PlannedStep("fit b", "b", 100, is_search=True),
    PlannedStep("refit a", "a", 120),
    PlannedStep("refit b", "b", 120),
    PlannedStep("fit on all: a", "a", 150),
    PlannedStep("fit on all: b", "b", 150),
]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        """Starts at 0 seconds."""
        self.now = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now


def run(clock: Clock, estimator: Estimator, steps: dict[str, float]) -> None:
    """Runs steps, each with its time in seconds."""
    for name, seconds in steps.items():
        estimator.start(name)
        clock.now += seconds


def test_without_expected_times_there_is_no_estimate_before_each_model_was_fitted() -> None:
    """Nothing is known of such a model, one of the user's own, so nothing is said."""
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


def test_expected_times_give_an_estimate_from_the_start() -> None:
    """First by the speed of the machine, then by how the steps so far took; both are rough."""
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


def test_a_search_is_no_bound_where_expected_times_tell_it_from_a_refit() -> None:
    """The refit is expected to take a share of the search, which is measured."""
    clock = Clock()
    estimator = Estimator(EXPECTED, clock)
    run(clock, estimator, {"fit a": 30, "fit b": 20, "refit a": 0})
    estimator.start("refit b")
    assert str(estimator.remaining()) == "about 0:05 left"


def test_a_model_that_is_left_out_is_not_counted_any_more() -> None:
    """Neither its first fit nor its refit; the numbers of the steps stay without gaps."""
    clock = Clock()
    estimator = Estimator(EXPECTED, clock)
    estimator.start("fit b")
    assert (estimator.position, estimator.steps) == (1, 2)
    estimator.start("refit b")
    assert (estimator.position, estimator.steps) == (2, 2)


def test_measured_times_are_scaled_by_the_numbers_of_ratings() -> None:
    """A first fit bounds the next ones; the refit replaces the bound by an estimate."""
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


def test_a_step_that_takes_longer_than_expected_does_not_make_the_rest_shorter() -> None:
    """The current step then counts as nearly done."""
    clock = Clock()
    estimator = Estimator(PLAN, clock)
    run(clock, estimator, {"fit a": 10, "fit b": 20, "refit a": 10, "refit b": 500})
    left = estimator.remaining()
    assert left is not None
    assert left.seconds == pytest.approx(10 * 1.25 + 20 * 1.5)


def test_skipped_steps_are_not_expected_any_more() -> None:
    """A model that a run leaves out does not stay in the estimate."""
    clock = Clock()
    estimator = Estimator(PLAN, clock)
    run(clock, estimator, {"fit a": 10, "fit b": 20, "fit on all: b": 0})
    left = estimator.remaining()
    assert left is not None
    assert left.seconds == pytest.approx(20 * 1.5)


@given(st.lists(st.floats(0.1, 1e4), min_size=6, max_size=6))
def test_if_times_are_proportional_to_ratings_the_estimate_is_exact(times: list[float]) -> None:
    """When refits take what the numbers of ratings predict, nothing is left but the truth."""
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
def test_durations_are_read_as_clocks_show_them(seconds: float, text: str) -> None:
    """Hours only where there are any."""
    assert duration(seconds) == text


def test_an_estimate_is_rounded_up_to_what_it_can_promise() -> None:
    """Five seconds, or half a minute from five minutes on."""
    assert str(Remaining(61.2, False)) == "about 1:05 left"
    assert str(Remaining(301.0, True)) == "at most 5:30 left"
    assert str(Remaining(3.0, False, is_rough=True)) == "roughly 0:05 left"
