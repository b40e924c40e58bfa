"""Metrics against sums by hand and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.data.dataset import RatingScale
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.metrics import ranking_metrics as ranking
from marquee_trainer.metrics.ranking_metrics import RankingTask, ranking_metrics
from marquee_trainer.metrics.rating_metrics import rating_metrics

WHOLE_STARS = RatingScale(1.0, 5.0, 1.0)
HALF_STARS = RatingScale(0.5, 5.0, 0.5)
LIKED = 4.0


def pairs(rows: list[tuple[int, int, float]]) -> Interactions:
    """Ratings of (user, item, stars)."""
    return Interactions(
        np.array([row[0] for row in rows], dtype=np.int32),
        np.array([row[1] for row in rows], dtype=np.int32),
        np.array([row[2] for row in rows], dtype=np.float32),
    )


def matrix(rows: list[tuple[int, int, float]], users: int, items: int) -> RatingsMatrix:
    """Training ratings of (user, item, stars)."""
    part = pairs(rows)
    return RatingsMatrix.of(part.users, part.items, part.ratings, users, items)


def test_rating_errors_by_hand() -> None:
    """MSE (1 + 4 + 0) / 3, MAE (1 + 2 + 0) / 3."""
    predictions = np.array([3, 2, 5], dtype=np.float32)
    found = rating_metrics(predictions, np.array([4, 4, 5], dtype=np.float32), WHOLE_STARS)
    assert found.mse == pytest.approx(5 / 3)
    assert found.rmse == pytest.approx(math.sqrt(5 / 3))
    assert found.mae == pytest.approx(1)


@pytest.mark.parametrize(("scale", "mse"), [(WHOLE_STARS, 1.0), (HALF_STARS, 0.625)])
def test_predictions_are_clipped_to_the_scale(scale: RatingScale, mse: float) -> None:
    """7 counts as 5, and -3 as the lowest rating of the scale."""
    predictions = np.array([7, -3], dtype=np.float32)
    ratings = np.array([4, 2 if scale is WHOLE_STARS else 1], dtype=np.float32)
    assert rating_metrics(predictions, ratings, scale).mse == pytest.approx(mse)


@given(st.lists(st.tuples(st.floats(-2, 8, width=32), st.integers(1, 5)), min_size=1, max_size=60))
def test_rating_errors_equal_plain_sums(rows: list[tuple[float, int]]) -> None:
    """Vectorised errors are those of a loop in double precision."""
    found = rating_metrics(
        np.array([row[0] for row in rows], dtype=np.float32),
        np.array([row[1] for row in rows], dtype=np.float32),
        WHOLE_STARS,
    )
    errors = [min(max(prediction, 1.0), 5.0) - rating for prediction, rating in rows]
    assert found.mse == pytest.approx(sum(e * e for e in errors) / len(errors), abs=1e-12)
    assert found.rmse == pytest.approx(math.sqrt(found.mse), abs=1e-12)
    assert found.mae == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-12)


def test_ranking_by_hand() -> None:
    """The seen item is passed over; of two relevant items one is second, one is beyond the list."""
    train = matrix([(0, 0, 5), (1, 1, 5)], 2, 5)
    task = RankingTask.of(train, pairs([(0, 2, 5), (0, 4, 4), (0, 3, 3.5), (1, 0, 2)]), LIKED)
    assert task.users.tolist() == [0]
    scores = np.array([[9, 3, 2, 1, 0.5]], dtype=np.float32)
    found = ranking_metrics(task, lambda users: scores[users], 3)
    gain = 1 / math.log2(3)
    assert found.ndcg == pytest.approx(gain / (1 + gain))
    assert found.recall == pytest.approx(1 / 2)
    assert found.coverage == pytest.approx(3 / 5)
    assert found.mrr == pytest.approx(1 / 2)
    assert found.map == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert (found.users, found.left_out) == (1, 1)
    assert found.top_counts.tolist() == [0, 1, 1, 1, 0]


def test_a_test_rating_that_was_trained_on_is_refused() -> None:
    """A leak is an error, not a user without relevant items."""
    with pytest.raises(ValueError, match="among the training ratings"):
        RankingTask.of(matrix([(0, 0, 5)], 1, 3), pairs([(0, 0, 5)]), LIKED)


def test_scores_that_are_no_numbers_are_refused() -> None:
    """A model that diverged gets no metrics, rather than good or bad ones."""
    task = RankingTask.of(matrix([(0, 0, 5)], 1, 3), pairs([(0, 1, 5)]), LIKED)
    scores = np.array([[np.nan, 1, np.nan]], dtype=np.float32)
    with pytest.raises(ValueError, match="not a number"):
        ranking_metrics(task, lambda users: scores[users], 2)
    stars = np.array([4, np.nan], dtype=np.float32)
    with pytest.raises(ValueError, match="not a number"):
        rating_metrics(stars, np.ones(2, dtype=np.float32), WHOLE_STARS)


def test_without_a_relevant_item_there_is_nothing_to_measure() -> None:
    """Dislikes alone give no users, not a division by zero."""
    task = RankingTask.of(matrix([(0, 0, 5)], 1, 3), pairs([(0, 1, 1)]), LIKED)
    found = ranking_metrics(task, lambda users: np.zeros((len(users), 3), np.float32), 2)
    assert (found.users, found.ndcg, found.recall) == (0, 0.0, 0.0)


def brute_force(
    train: RatingsMatrix, test: Interactions, scores: Float64, k: int, recall_k: int
) -> tuple[list[tuple[float, float, float, float]], set[int]]:
    """NDCG, recall, reciprocal rank and average precision by user, and all items shown."""
    rows, shown = [], set()
    for user in range(train.user_count):
        relevant = {
            int(item)
            for owner, item, stars in zip(test.users, test.items, test.ratings, strict=True)
            if owner == user and stars >= LIKED
        }
        if not relevant:
            continue
        seen = set(train.seen(user).tolist())
        candidates = [item for item in range(train.item_count) if item not in seen]
        ranked = sorted(candidates, key=lambda item: (-scores[user, item], item))
        shown.update(ranked[:k])
        ranks = [rank for rank, item in enumerate(ranked, start=1) if item in relevant]
        gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k)
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
        recall = sum(rank <= recall_k for rank in ranks) / len(relevant)
        precision = sum(nth / rank for nth, rank in enumerate(ranks, start=1)) / len(relevant)
        rows.append((gain / best, recall, 1 / ranks[0], precision))
    return rows, shown


@pytest.mark.parametrize("block_cells", [1, 40, 2_000_000])
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 12),
    recall_k=st.integers(1, 12),
    levels=st.integers(1, 30),
)
def test_ranking_equals_plain_loops(
    block_cells: int, seed: int, k: int, recall_k: int, levels: int
) -> None:
    """Blocks, partial sorts and ties change nothing; lists longer than the catalogue do not."""
    random = np.random.default_rng(seed)
    users, items = int(random.integers(1, 9)), int(random.integers(2, 11))
    kinds = random.integers(0, 3, (users, items))  # unrated, training, test
    stars = random.integers(1, 6, (users, items))

    def part(kind: int) -> list[tuple[int, int, float]]:
        return [(int(u), int(i), float(stars[u, i])) for u, i in np.argwhere(kinds == kind)]

    train, test = matrix(part(1), users, items), pairs(part(2))
    scores = random.integers(-levels, levels, (users, items)) / 4

    def score(block: Int32) -> Float32:
        chosen: Float32 = scores[block].astype(np.float32)
        return chosen

    rows, shown = brute_force(train, test, scores, k, recall_k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK_CELLS", block_cells)
        found = ranking_metrics(RankingTask.of(train, test, LIKED), score, k, recall_k)
    assert found.users == len(rows)
    assert found.left_out == len(set(test.users.tolist())) - len(rows)
    if rows:
        by_user = (
            found.ndcg_by_user,
            found.recall_by_user,
            found.reciprocal_rank_by_user,
            found.average_precision_by_user,
        )
        np.testing.assert_allclose(np.stack(by_user, axis=1), rows)
        means = (found.ndcg, found.recall, found.mrr, found.map)
        np.testing.assert_allclose(means, np.mean(rows, axis=0))
        assert found.coverage == pytest.approx(len(shown) / items)
