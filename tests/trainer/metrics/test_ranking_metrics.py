"""Ranking metrics, compared with hand-computed values and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.metrics import ranking_metrics as ranking
from marquee_trainer.metrics.ranking_metrics import RankingTask, mean_ndcg, ranking_metrics

RELEVANT_STARS = 4.0


def interactions(rows: list[tuple[int, int, float]]) -> Interactions:
    """Return ratings given as (user, item, stars)."""
    return Interactions(
        np.array([row[0] for row in rows], dtype=np.int32),
        np.array([row[1] for row in rows], dtype=np.int32),
        np.array([row[2] for row in rows], dtype=np.float32),
    )


def matrix(rows: list[tuple[int, int, float]], users: int, items: int) -> RatingsMatrix:
    """Return training ratings given as (user, item, stars)."""
    part = interactions(rows)
    return RatingsMatrix.of(part.users, part.items, part.ratings, users, items)


def test_metrics_match_hand_computed_values() -> None:
    """Rated items are skipped; one relevant item is ranked second, the other below the list."""
    train = matrix([(0, 0, 5), (1, 1, 5)], 2, 5)
    task = RankingTask.of(
        train, interactions([(0, 2, 5), (0, 4, 4), (0, 3, 3.5), (1, 0, 2)]), RELEVANT_STARS
    )
    assert task.users.tolist() == [0]
    scores = np.array([[9, 3, 2, 1, 0.5]], dtype=np.float32)
    found = ranking_metrics(task, lambda users: scores[users], 3)
    gain = 1 / math.log2(3)
    assert found.ndcg == pytest.approx(gain / (1 + gain))
    assert found.recall == pytest.approx(1 / 2)
    assert found.coverage == pytest.approx(3 / 5)
    assert found.mrr == pytest.approx(1 / 2)
    assert found.map == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert (found.users, found.excluded_users) == (1, 1)
    assert found.top_counts.tolist() == [0, 1, 1, 1, 0]


def test_a_test_rating_among_the_training_ratings_is_refused() -> None:
    """A leak is an error rather than the silent loss of a relevant item."""
    with pytest.raises(ValueError, match="among the training ratings"):
        RankingTask.of(matrix([(0, 0, 5)], 1, 3), interactions([(0, 0, 5)]), RELEVANT_STARS)


def test_a_score_of_nan_is_refused() -> None:
    """A model that diverged causes an error instead of metrics."""
    task = RankingTask.of(matrix([(0, 0, 5)], 1, 3), interactions([(0, 1, 5)]), RELEVANT_STARS)
    scores = np.array([[np.nan, 1, np.nan]], dtype=np.float32)
    with pytest.raises(ValueError, match="not a number"):
        ranking_metrics(task, lambda users: scores[users], 2)
    with pytest.raises(ValueError, match="not a number"):
        mean_ndcg(task, lambda users: scores[users], 2)


def test_metrics_are_zero_without_relevant_items() -> None:
    """Without relevant test ratings there are no users, and nothing is divided by zero."""
    task = RankingTask.of(matrix([(0, 0, 5)], 1, 3), interactions([(0, 1, 1)]), RELEVANT_STARS)
    found = ranking_metrics(task, lambda users: np.zeros((len(users), 3), np.float32), 2)
    assert (found.users, found.ndcg, found.recall) == (0, 0.0, 0.0)
    assert mean_ndcg(task, lambda users: np.zeros((len(users), 3), np.float32), 2) == 0.0


def brute_force(
    train: RatingsMatrix, test: Interactions, scores: Float64, k: int, recall_k: int
) -> tuple[list[tuple[float, float, float, float]], set[int]]:
    """Return NDCG, recall, reciprocal rank and average precision by user, and all top-k items."""
    rows, recommended = [], set()
    for user in range(train.user_count):
        relevant = {
            int(item)
            for owner, item, stars in zip(test.users, test.items, test.ratings, strict=True)
            if owner == user and stars >= RELEVANT_STARS
        }
        if not relevant:
            continue
        seen = set(train.seen(user).tolist())
        candidates = [item for item in range(train.item_count) if item not in seen]
        ranked = sorted(candidates, key=lambda item: (-scores[user, item], item))
        recommended.update(ranked[:k])
        ranks = [rank for rank, item in enumerate(ranked, start=1) if item in relevant]
        gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k)
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
        recall = sum(rank <= recall_k for rank in ranks) / len(relevant)
        precision = sum(nth / rank for nth, rank in enumerate(ranks, start=1)) / len(relevant)
        rows.append((gain / best, recall, 1 / ranks[0], precision))
    return rows, recommended


@pytest.mark.parametrize("block_cells", [1, 40, 2_000_000])
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 12),
    recall_k=st.integers(1, 12),
    levels=st.integers(1, 30),
)
def test_metrics_match_plain_loops(
    block_cells: int, seed: int, k: int, recall_k: int, levels: int
) -> None:
    """Metrics agree for any block size, with ties, and with lists longer than the catalogue."""
    random = np.random.default_rng(seed)
    users, items = int(random.integers(1, 9)), int(random.integers(2, 11))
    kinds = random.integers(0, 3, (users, items))  # unrated, training, test
    stars = random.integers(1, 6, (users, items))

    def part(kind: int) -> list[tuple[int, int, float]]:
        return [(int(u), int(i), float(stars[u, i])) for u, i in np.argwhere(kinds == kind)]

    train, test = matrix(part(1), users, items), interactions(part(2))
    scores = random.integers(-levels, levels, (users, items)) / 4

    def score(block: Int32) -> Float32:
        chosen: Float32 = scores[block].astype(np.float32)
        return chosen

    rows, recommended = brute_force(train, test, scores, k, recall_k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK_CELLS", block_cells)
        task = RankingTask.of(train, test, RELEVANT_STARS)
        found = ranking_metrics(task, score, k, recall_k)
        assert mean_ndcg(task, score, k) == pytest.approx(found.ndcg, rel=1e-12)
    assert found.users == len(rows)
    assert found.excluded_users == len(set(test.users.tolist())) - len(rows)
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
        assert found.coverage == pytest.approx(len(recommended) / items)
