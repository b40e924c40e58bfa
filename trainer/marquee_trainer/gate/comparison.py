"""Compares two releases user by user, on held-out ratings that neither was trained on.

The models that a release serves were refitted on all its ratings, so none of these can be used to
judge them. Each release therefore stores what its models predicted and recommended before the refit
(`HeldOutEvaluation`). Ratings that both releases held out, by default the latest of each user, are
a fair test for both.

Users who have not rated anything since production was trained have the same test part in both
releases. If there are enough of them, only they are compared. For other users, the overlap of the
two test parts is compared. That slightly favours the candidate, which was trained on more ratings
of these users.

Letting the served models of production score newer ratings would not be fair: they have learned
from more ratings of all users than the candidate's models had when they were evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.ratings import Profiles, join_profiles
from marquee_trainer.gate.served_release import ServedRelease
from marquee_trainer.metrics.ranking_metrics import TOP
from marquee_trainer.publishing.held_out import HeldOutEvaluation

_DISCOUNTS = 1.0 / np.log2(np.arange(2, TOP + 2))
_IDEAL = np.concatenate([[0.0], np.cumsum(_DISCOUNTS)])


@dataclass
class PairedFigures:
    """Metrics of the candidate and of production for the same users and ratings.

    Attributes:
        ndcg: NDCG@10 of both, for each user with a relevant rating.
        squared_errors: The mean squared errors of predicted stars of both, and the number of
            ratings, for each user.
        users: Number of users with ratings that both releases held out.
        ratings: Number of these ratings.
    """

    ndcg: list[tuple[float, float]] = field(default_factory=list)
    squared_errors: list[tuple[float, float, int]] = field(default_factory=list)
    users: int = 0
    ratings: int = 0


@dataclass(frozen=True)
class _Evaluated:
    """A release's evaluation of one user, with items as the candidate numbers them.

    Attributes:
        items: The items of the held-out ratings; −1 for items that the candidate lacks (int32, n).
        ratings: The held-out ratings (float32, n).
        errors: Squared errors of the predictions; empty for implicit feedback (float32, n).
        best: The list, best first (int32).
        rated: All items that the user has rated (int32).
    """

    items: Int32
    ratings: Float32
    errors: Float32
    best: Int32
    rated: Int32


def compare(candidate: ServedRelease, production: ServedRelease, min_users: int) -> PairedFigures:
    """Compares two releases; the result is empty if either of them does not hold its evaluation.

    Args:
        candidate: The candidate.
        production: The release in production.
        min_users: Number of users with the same test part from which on other users are left out.
    """
    same_test_part, all_users = PairedFigures(), PairedFigures()
    held, production_held = candidate.held_out, production.held_out
    if held is None or production_held is None:
        return all_users
    same_indexes = np.arange(len(candidate.catalogue), dtype=np.int32)
    candidate_indexes = candidate.catalogue.items.indexes(
        production.catalogue.items.ids(range(len(production.catalogue)))
    )
    known = production.users.indexes(candidate.users.ids(held.users))
    for position, user in enumerate(known.tolist()):
        production_position = int(np.searchsorted(production_held.users, user))
        if (
            user < 0
            or production_position == len(production_held.users)
            or production_held.users[production_position] != user
        ):
            continue
        by_candidate = _evaluated(candidate, held, position, same_indexes)
        by_production = _evaluated(
            production, production_held, production_position, candidate_indexes
        )
        _compare_user(all_users, by_candidate, by_production, candidate.relevant_stars)
        if np.array_equal(np.sort(by_candidate.items), np.sort(by_production.items)):
            _compare_user(same_test_part, by_candidate, by_production, candidate.relevant_stars)
    return same_test_part if len(same_test_part.ndcg) >= min_users else all_users


def _compare_user(
    found: PairedFigures, candidate: _Evaluated, production: _Evaluated, relevant_stars: float
) -> None:
    """Adds the metrics of a user, if both releases held out some of the user's ratings."""
    items, candidate_rows, production_rows = np.intersect1d(
        candidate.items, production.items, assume_unique=False, return_indices=True
    )
    is_same = (items >= 0) & (
        candidate.ratings[candidate_rows] == production.ratings[production_rows]
    )
    items, candidate_rows, production_rows = (
        items[is_same],
        candidate_rows[is_same],
        production_rows[is_same],
    )
    if not len(items):
        return
    found.users += 1
    found.ratings += len(items)
    relevant = items[candidate.ratings[candidate_rows] >= relevant_stars]
    if len(relevant):
        # Other items that the user has rated are not candidates for either list.
        rated = np.setdiff1d(np.union1d(candidate.rated, production.rated), items)
        found.ndcg.append(
            (
                ndcg(_without(candidate.best, rated), relevant),
                ndcg(_without(production.best, rated), relevant),
            )
        )
    if len(candidate.errors) and len(production.errors):
        errors = candidate.errors[candidate_rows], production.errors[production_rows]
        candidate_error, production_error = (float(each.mean(dtype=np.float64)) for each in errors)
        found.squared_errors.append((candidate_error, production_error, len(items)))


def _evaluated(
    release: ServedRelease, held: HeldOutEvaluation, position: int, numbers: Int32
) -> _Evaluated:
    """Extracts a user's evaluation.

    Args:
        release: The release.
        held: Its evaluation.
        position: The user's position in it.
        numbers: For each item of the release, its index in the candidate; −1 for none (int32).
    """
    rows = slice(held.indptr[position], held.indptr[position + 1])
    ratings, best = held.ratings[rows], held.lists[position]
    errors = np.empty(0, np.float32)
    if len(held.predicted):
        errors = (np.clip(held.predicted[rows], *release.scale) - ratings) ** 2
    return _Evaluated(
        numbers[held.items[rows]],
        ratings,
        errors.astype(np.float32),
        # Items that the candidate lacks stay on the list, and count as irrelevant.
        numbers[best[best >= 0]],
        numbers[release.data.matrix.seen(int(held.users[position]))],
    )


def _without(best: Int32, rated: Int32) -> Int32:
    dropped: Bool = np.isin(best, rated[rated >= 0])
    return best[~dropped]


def training_profiles(release: ServedRelease, positions: Sequence[int]) -> Profiles:
    """Builds visitor profiles of the ratings that the evaluated models were trained on.

    Args:
        release: The release; it must hold its evaluation.
        positions: Positions of the users in its sample.

    Raises:
        ValueError: The release does not hold its evaluation.
    """
    held, matrix = release.held_out, release.data.matrix
    if held is None:
        raise ValueError("the release does not hold its evaluation")
    parts = []
    for position in positions:
        own = matrix.profiles([int(held.users[position])])
        kept = ~np.isin(own.items, held.items[held.indptr[position] : held.indptr[position + 1]])
        oldest_first = np.argsort(-own.later_counts[kept], kind="stable")
        items, ratings = own.items[kept][oldest_first], own.ratings[kept][oldest_first]
        parts.append(matrix.profile(-1, items, ratings))
    return join_profiles(parts)


def ndcg(best: Int32, relevant: Int32) -> float:
    """Computes NDCG@10 of a list; see `RankingMetrics.ndcg`.

    Args:
        best: The items of the list, best first; entries beyond the tenth do not count (int32, n).
        relevant: The relevant items, at least one (int32, m).
    """
    hits = np.isin(best[:TOP], relevant)
    return float(hits @ _DISCOUNTS[: len(hits)] / _IDEAL[min(len(relevant), TOP)])
