"""Compares ratings with those of the release in production."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.release.verdict import Check, Decision
from marquee_trainer.gate.config import GateConfig

COUNTS = "counts"
"""The name of the check of the numbers of ratings, users and items."""
_BINS = 10
# Added to each share, so that an empty bin does not make the index infinite.
_SMOOTHING = 1e-4


@dataclass(frozen=True)
class RatingsSummary:
    """The properties of ratings that are compared between releases.

    Attributes:
        ratings: The ratings (float32, n).
        users: Number of users with ratings.
        items: Number of rated items.
        low: The lowest rating of the scale.
        high: The highest rating of the scale.
    """

    ratings: Float32
    users: int
    items: int
    low: float
    high: float


def drift_checks(
    now: RatingsSummary, before: RatingsSummary, config: GateConfig
) -> Iterator[Check]:
    """Compares the size and the distribution of ratings with those in production.

    Args:
        now: The candidate's ratings.
        before: Production's ratings.
        config: The thresholds.
    """
    if (now.low, now.high) != (before.low, before.high):
        text = f"{now.low:g} to {now.high:g}, {before.low:g} to {before.high:g} before"
        yield Check("scale", Decision.ASK, text)
    counts = {
        "ratings": (len(now.ratings), len(before.ratings)),
        "users": (now.users, before.users),
        "items": (now.items, before.items),
    }
    drops = {name: 1.0 - new / max(1, old) for name, (new, old) in counts.items()}
    worst = max(drops.values())
    decision = Decision.PROMOTE
    if worst > config.refused_drop:
        decision = Decision.REFUSE
    elif worst > config.asked_drop:
        decision = Decision.ASK
    text = ", ".join(f"{new:,} {name} ({old:,} before)" for name, (new, old) in counts.items())
    yield Check(COUNTS, decision, text, drops)
    index = population_stability(now, before)
    shift = float(now.ratings.mean(dtype=np.float64) - before.ratings.mean(dtype=np.float64))
    yield Check(
        "distribution",
        Decision.ASK if index > config.max_drift else Decision.PROMOTE,
        f"population stability index {index:.3f}, mean rating {shift:+.2f}",
        {"index": index, "mean_shift": shift},
    )


def population_stability(now: RatingsSummary, before: RatingsSummary) -> float:
    """The population stability index Σ (p − q) ln(p / q) over bins of ratings (Siddiqi, 2006).

    By convention, a value below 0.1 means little change, and one above 0.25 a large change. The
    bins are the distinct ratings or, if there are more than 20, ten equal parts of the joint range.
    """
    both = np.concatenate([now.ratings, before.ratings])
    values = np.unique(both)
    if len(values) <= 2 * _BINS:
        edges = np.append(values.astype(np.float64), np.inf)
    else:
        edges = np.linspace(float(values[0]), float(values[-1]), _BINS + 1)
    new, old = _shares(now.ratings, edges), _shares(before.ratings, edges)
    return float(np.sum((new - old) * np.log(new / old)))


def _shares(ratings: Float32, edges: Float64) -> Float64:
    counts, _ = np.histogram(ratings, edges)
    shares: Float64 = counts / max(1, len(ratings)) + _SMOOTHING
    shares /= shares.sum()
    return shares
