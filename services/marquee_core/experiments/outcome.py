"""The outcome of an experiment: lists and feedback of each arm, and whether the arms differ.

Feedback is attributed to an arm by the recommendation id of the list, which is valid only for the
user to whom it was issued. The metrics are computed per user:

- **likes**: the number of listed items that the user rated at three quarters of the scale or above
  (4 on a scale of 1 to 5), liked, or watched to at least 70 %, divided by the number of lists,
- **clicks**: the number of listed items that the user clicked, divided by the number of lists,
- **stars**: the mean of the user's ratings of listed items.

An item counts once per list, with the latest rating or like. The unit of randomisation is the user,
so each user counts once regardless of the number of lists. Stars are biased: only users who rate
are included, and the arm may influence who rates. Likes do not have this bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from marquee_core.experiments.experiment import (
    CLICKS,
    CONTROL,
    LIKES,
    METRICS,
    STARS,
    Experiment,
)
from marquee_core.experiments.recommendation_id import id_prefix, parse_recommendation_id
from marquee_core.experiments.sequential import (
    Interval,
    Sample,
    difference_interval,
    mean_interval,
)
from marquee_core.feedback.event_ratings import counts_as_rating, event_stars, is_explicit
from marquee_core.feedback.events import (
    FeedbackEvent,
    FeedbackKind,
    ListCount,
    LogEntry,
    user_digest,
)

if TYPE_CHECKING:
    from marquee_core.feedback.log import EventLog

SILENT_S = 60.0
"""Seconds without a write after which a counter that is not closed is considered lost. A running
gateway writes more often."""

LIKED_ON_SCALE = 0.75
"""The position on the rating scale, from 0 to 1, from which a rating is a like."""


@dataclass(frozen=True)
class MetricOutcome:
    """The value of a metric for an arm.

    Attributes:
        users: The number of users included in the mean.
        mean: The mean over users.
        difference: The difference from the control; None for the control itself.
    """

    users: int
    mean: Interval
    difference: Interval | None


@dataclass(frozen=True)
class ArmOutcome:
    """The outcome of an arm.

    Attributes:
        name: The arm's name.
        users: The number of users who received lists.
        lists: The number of lists.
        clicks: The number of clicked items.
        likes: The number of liked items.
        ratings: The number of rated items.
        metrics: The metrics, by name.
    """

    name: str
    users: int
    lists: int
    clicks: int
    likes: int
    ratings: int
    metrics: Mapping[str, MetricOutcome]


@dataclass(frozen=True)
class Outcome:
    """The outcome of an experiment.

    Attributes:
        arms: The outcome of each arm, in the order of the arms.
        verdict: The verdict by the experiment's metric, as a sentence.
        winner: The arm that is better than the control, or the control if it is better than all
            others; "" while there is no winner.
        uncounted_lists: The number of lists with feedback that no counter included, because a
            gateway was killed. They are included in the numbers of lists.
        foreign_events: The number of events with a recommendation id that was not issued to their
            user.
        lost_counters: The number of gateways that ended without writing their last counts, so the
            lists of their last seconds are missing.
    """

    arms: tuple[ArmOutcome, ...]
    verdict: str
    winner: str
    uncounted_lists: int
    foreign_events: int
    lost_counters: int = 0


@dataclass
class _User:
    """The lists and feedback of one user of an arm."""

    counted_lists: int = 0
    seen_lists: set[str] = field(default_factory=set)
    clicked: set[tuple[str, str]] = field(default_factory=set)
    # The events that count as ratings, by list and item, each with its precedence.
    opinions: dict[tuple[str, str], tuple[tuple[bool, int, int], FeedbackEvent]] = field(
        default_factory=dict
    )

    @property
    def lists(self) -> int:
        return max(self.counted_lists, len(self.seen_lists))


def read_outcome(experiment: Experiment, log: EventLog) -> Outcome:
    """Computes the outcome of an experiment from the feedback log.

    Raises:
        LogUnavailable: The database does not respond.
    """
    experiment_id = experiment.experiment_id
    outcome = outcome_of(
        experiment,
        log.list_counts(experiment_id),
        log.events_from_lists(id_prefix(experiment), experiment.log_position),
    )
    lost = sum(
        not counter.is_closed and counter.silent_s > SILENT_S
        for counter in log.list_counters(experiment_id)
    )
    return replace(outcome, lost_counters=lost)


def outcome_of(
    experiment: Experiment, list_counts: Iterable[ListCount], entries: Iterable[LogEntry]
) -> Outcome:
    """Computes the outcome of an experiment by joining lists and feedback.

    Args:
        experiment: The experiment.
        list_counts: The number of its lists that each user received.
        entries: The log entries with events about its lists, in any order.
    """
    users: list[dict[bytes, _User]] = [{} for _ in experiment.arms]
    for count in list_counts:
        if count.arm < len(users):
            user = users[count.arm].setdefault(count.user_digest, _User())
            user.counted_lists += count.lists
    foreign = 0
    for entry in entries:
        event = entry.event
        if event is None:
            continue
        origin = parse_recommendation_id(event.recommendation_id)
        if origin is None or not origin.belongs_to(experiment, event.user_id):
            foreign += 1
            continue
        user = users[origin.arm].setdefault(user_digest(event.user_id), _User())
        _add(user, event, entry.position)
    samples = [_samples(experiment, arm) for arm in users]
    arms = _compare(experiment, users, samples)
    verdict, winner = _verdict(experiment, arms)
    uncounted = sum(
        max(0, len(user.seen_lists) - user.counted_lists) for arm in users for user in arm.values()
    )
    return Outcome(tuple(arms), verdict, winner, uncounted, foreign)


def _add(user: _User, event: FeedbackEvent, position: int) -> None:
    user.seen_lists.add(event.recommendation_id)
    key = event.recommendation_id, event.item_id
    if event.kind is FeedbackKind.CLICK:
        user.clicked.add(key)
    elif counts_as_rating(event.kind, event.value):
        precedence = is_explicit(event.kind), event.time_us, position
        known = user.opinions.get(key)
        if known is None or precedence > known[0]:
            user.opinions[key] = precedence, event


def _is_like(experiment: Experiment, event: FeedbackEvent) -> bool:
    low, high = experiment.rating_min, experiment.rating_max
    return event_stars(event.kind, event.value, low, high) >= low + LIKED_ON_SCALE * (high - low)


def _samples(experiment: Experiment, users: Mapping[bytes, _User]) -> dict[str, list[float]]:
    """Returns the values of the users, by metric."""
    values: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for user in users.values():
        likes = sum(_is_like(experiment, event) for _, event in user.opinions.values())
        values[LIKES].append(likes / user.lists)
        values[CLICKS].append(len(user.clicked) / user.lists)
        stars = [e.value for _, e in user.opinions.values() if e.kind is FeedbackKind.RATING]
        if stars:
            values[STARS].append(sum(stars) / len(stars))
    return values


def _compare(
    experiment: Experiment,
    users: list[dict[bytes, _User]],
    values: list[dict[str, list[float]]],
) -> list[ArmOutcome]:
    control_index = [arm.name for arm in experiment.arms].index(CONTROL)
    samples = [{metric: Sample.of(arm[metric]) for metric in METRICS} for arm in values]
    control = samples[control_index]
    # Bonferroni correction for the comparisons with the control.
    alpha = experiment.alpha / (len(experiment.arms) - 1)
    outcomes = []
    for index, arm in enumerate(experiment.arms):
        metrics = {
            metric: MetricOutcome(
                sample.count,
                mean_interval(sample, experiment.alpha),
                None
                if index == control_index
                else difference_interval(sample, control[metric], alpha),
            )
            for metric, sample in samples[index].items()
        }
        opinions = [e for user in users[index].values() for _, e in user.opinions.values()]
        outcomes.append(
            ArmOutcome(
                arm.name,
                users=len(users[index]),
                lists=sum(user.lists for user in users[index].values()),
                clicks=sum(len(user.clicked) for user in users[index].values()),
                likes=sum(_is_like(experiment, event) for event in opinions),
                ratings=sum(event.kind is FeedbackKind.RATING for event in opinions),
                metrics=metrics,
            )
        )
    return outcomes


def _verdict(experiment: Experiment, arms: list[ArmOutcome]) -> tuple[str, str]:
    """Returns the verdict by the experiment's metric, and the winner; "" while there is none."""
    metric = experiment.metric
    name = {LIKES: "likes per list", CLICKS: "clicks per list", STARS: "mean stars"}[metric]
    differences = {
        arm.name: difference
        for arm in arms
        if (difference := arm.metrics[metric].difference) is not None
    }
    better = {arm: d for arm, d in differences.items() if d.low > 0.0}
    if better:
        winner = max(better, key=lambda arm: better[arm].estimate)
        found = better[winner]
        return (
            f"{winner} is better than {CONTROL}: {found.estimate:+.3f} {name} "
            f"({found.low:+.3f} to {found.high:+.3f})",
            winner,
        )
    if all(d.high < 0.0 for d in differences.values()):
        closest = max(differences, key=lambda arm: differences[arm].estimate)
        found = differences[closest]
        return (
            f"{CONTROL} is better than {'all other arms' if len(differences) > 1 else closest}: "
            f"{closest} has {found.estimate:+.3f} {name} ({found.low:+.3f} to {found.high:+.3f})",
            CONTROL,
        )
    return f"open: no arm differs reliably from {CONTROL} in {name} yet", ""
