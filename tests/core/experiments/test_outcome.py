"""Lists and feedback are joined by recommendation id, and each user counts once."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from marquee_core.experiments.experiment import Arm, Experiment
from marquee_core.experiments.outcome import Outcome, outcome_of
from marquee_core.experiments.recommendation_id import new_recommendation_id
from marquee_core.experiments.sequential import Sample, difference_interval
from marquee_core.feedback.events import (
    EntryType,
    FeedbackEvent,
    FeedbackKind,
    ListCount,
    LogEntry,
    user_digest,
)
from toy.experiments import toy_experiment


class Recorded:
    """The lists and events of an experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.counts: list[ListCount] = []
        self.entries: list[LogEntry] = []

    def list(self, user: str, times: int = 1) -> str:
        """Record lists of a user, and return the id of one of them."""
        arm = self.experiment.assign(user)
        count = ListCount(self.experiment.experiment_id, arm, user_digest(user), times)
        self.counts.append(count)
        return new_recommendation_id(self.experiment, arm, user)

    def event(
        self,
        user: str,
        list_id: str,
        item: str,
        kind: FeedbackKind,
        value: float = 0.0,
        time: int = 0,
    ) -> None:
        """Record an event."""
        position = len(self.entries) + 1
        event = FeedbackEvent(user, item, kind, value, time or position, str(position), list_id)
        self.entries.append(LogEntry(position, EntryType.EVENT, event, 0, b""))

    @property
    def outcome(self) -> Outcome:
        """Return the outcome of all entries, in shuffled order."""
        entries = self.entries.copy()
        random.Random(1).shuffle(entries)  # noqa: S311
        return outcome_of(self.experiment, self.counts, entries)


def users(experiment: Experiment, arm: int, count: int) -> list[str]:
    """Return users of an arm."""
    return [u for n in range(100 * count) if experiment.assign(u := f"n{n}") == arm][:count]


def test_each_kind_of_event_counts_as_documented() -> None:
    """Likes, clicks and stars of one user are counted by list and item."""
    experiment = toy_experiment()
    [user], recorded = users(experiment, 1, 1), Recorded(experiment)
    first, second = recorded.list(user), recorded.list(user)
    recorded.event(user, first, "a", FeedbackKind.CLICK)
    recorded.event(user, first, "a", FeedbackKind.CLICK)
    recorded.event(user, second, "a", FeedbackKind.CLICK)
    recorded.event(user, first, "b", FeedbackKind.RATING, 2.0)
    recorded.event(user, first, "b", FeedbackKind.RATING, 4.0)  # replaces the 2
    recorded.event(user, first, "c", FeedbackKind.RATING, 3.0)
    recorded.event(user, first, "d", FeedbackKind.LIKE)
    recorded.event(user, first, "e", FeedbackKind.DISLIKE)
    recorded.event(user, first, "f", FeedbackKind.PLAY, 0.9)
    recorded.event(user, first, "g", FeedbackKind.PLAY, 0.1)
    recorded.event(user, first, "h", FeedbackKind.VIEW)
    control, candidate = recorded.outcome.arms
    assert (control.users, control.lists) == (0, 0)
    assert math.isnan(control.metrics["likes"].mean.estimate)
    assert (candidate.users, candidate.lists) == (1, 2)
    assert (candidate.clicks, candidate.likes, candidate.ratings) == (2, 3, 2)
    assert candidate.metrics["likes"].mean.estimate == 1.5
    assert candidate.metrics["clicks"].mean.estimate == 1.0
    assert candidate.metrics["stars"].mean.estimate == 3.5


def test_a_late_event_does_not_replace_a_newer_rating() -> None:
    """The time of an event decides which one is newer, not its position in the log."""
    experiment = toy_experiment()
    [user], recorded = users(experiment, 0, 1), Recorded(experiment)
    shown = recorded.list(user)
    recorded.event(user, shown, "a", FeedbackKind.RATING, 5.0, time=200)
    recorded.event(user, shown, "a", FeedbackKind.RATING, 1.0, time=100)
    assert recorded.outcome.arms[0].metrics["stars"].mean.estimate == 5.0


def test_each_user_counts_once() -> None:
    """A user with many lists does not outweigh others."""
    experiment = toy_experiment()
    recorded = Recorded(experiment)
    heavy, light = users(experiment, 0, 2)
    shown = recorded.list(heavy, times=100)
    recorded.list(light)
    for item in range(100):
        recorded.event(heavy, shown, str(item), FeedbackKind.LIKE)
    control = recorded.outcome.arms[0]
    assert control.lists == 101
    assert control.metrics["likes"].mean.estimate == 0.5


def test_feedback_on_foreign_lists_does_not_count() -> None:
    """A recommendation id counts only for the user that it was issued to."""
    experiment = toy_experiment()
    recorded = Recorded(experiment)
    owner, stranger = users(experiment, 0, 2)
    shown = recorded.list(owner)
    recorded.event(stranger, shown, "a", FeedbackKind.LIKE)
    recorded.event(owner, shown[:-1] + ("0" if shown[-1] != "0" else "1"), "a", FeedbackKind.LIKE)
    outcome = recorded.outcome
    assert outcome.foreign_events == 2
    assert outcome.arms[0].likes == 0
    assert outcome.arms[0].users == 1


def test_feedback_reveals_lists_that_were_not_counted() -> None:
    """Lists that a killed gateway did not count are found by their feedback, and reported."""
    experiment = toy_experiment()
    [user], recorded = users(experiment, 0, 1), Recorded(experiment)
    for _ in range(3):
        shown = new_recommendation_id(experiment, 0, user)
        recorded.event(user, shown, "a", FeedbackKind.CLICK)
    outcome = recorded.outcome
    assert outcome.uncounted_lists == 3
    assert outcome.arms[0].lists == 3
    assert outcome.arms[0].metrics["clicks"].mean.estimate == 1.0


@pytest.mark.parametrize(("better", "winner"), [(1, "candidate"), (0, "control"), (None, "")])
def test_the_verdict_names_the_better_arm(better: int | None, winner: str) -> None:
    """Either arm may win, and without a difference the experiment stays open."""
    experiment = toy_experiment()
    recorded, chance = Recorded(experiment), random.Random(3)  # noqa: S311
    for number in range(600):
        user = f"n{number}"
        shown = recorded.list(user)
        likely = 0.7 if experiment.assign(user) == better else 0.3
        for item in range(5):
            if chance.random() < likely:
                recorded.event(user, shown, str(item), FeedbackKind.RATING, 5.0)
    outcome = recorded.outcome
    assert outcome.winner == winner
    assert (winner or "open") in outcome.verdict
    stars = outcome_of(replace(experiment, metric="stars"), recorded.counts, recorded.entries)
    assert stars.winner == ""  # all of them gave five


def test_comparisons_share_the_error_probability() -> None:
    """With three arms, each comparison uses half of alpha (Bonferroni)."""
    arms = [Arm(name, "r", 100.0 / 3) for name in ("control", "b", "c")]
    experiment = toy_experiment(*arms)
    recorded, chance = Recorded(experiment), random.Random(4)  # noqa: S311
    values: list[list[float]] = [[], [], []]
    for number in range(600):
        user = f"n{number}"
        shown = recorded.list(user)
        likes = chance.random() < 0.5
        values[experiment.assign(user)].append(float(likes))
        if likes:
            recorded.event(user, shown, "a", FeedbackKind.LIKE)
    control, *others = map(Sample.of, values)
    for sample, arm in zip(others, recorded.outcome.arms[1:], strict=True):
        found = arm.metrics["likes"].difference
        expected = difference_interval(sample, control, 0.025)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
