"""Ranking the candidates of a large catalogue agrees with ranking every item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marquee_core.ratings import RatingsMatrix
from marquee_core.retrieval.exact import ExactIndex, item_products
from marquee_core.scorers.scorer import ReleaseData
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query
from marquee_services.scoring.ranking import UserRanking, rank
from scoring.test_ranking import PAGE, PLAN, Sample, exact_ranking, sample

__all__ = ["sample"]

RETRIEVED = 60
LARGE = replace(PLAN, top_count=2 * PAGE, retrieve_count=RETRIEVED)


@pytest.fixture(scope="module")
def engine(sample: Sample) -> Engine:
    """The sample's models with exact indexes for those whose scores are products of vectors."""
    products = {name: item_products(scorer) for name, scorer in sample.engine.scorers.items()}
    indexes = {name: ExactIndex(items) for name, items in products.items() if items is not None}
    return replace(sample.engine, indexes=indexes, rankers={})


def top_of(found: UserRanking) -> list[int]:
    """Return the items of a shortlist."""
    assert found.top is not None
    items: list[int] = found.top.items.tolist()
    return items


def test_a_shortlist_of_candidates_has_the_best_items_of_the_catalogue(
    sample: Sample, engine: Engine
) -> None:
    """At least 98 % of the top 20 agree with those by the exact scores of every item."""
    assert LARGE.retrieve_count * 5 < engine.data.matrix.item_count * len(LARGE.weights)
    same = []
    for query, found in zip(sample.visitors, rank(engine, sample.visitors, LARGE), strict=True):
        expected = np.argsort(-exact_ranking(sample, query), kind="stable")[:PAGE]
        same.append(len(set(top_of(found)[:PAGE]) & set(expected.tolist())) / PAGE)
        assert found.stars is not None
        assert found.stars.items.tolist() == top_of(found)[:PAGE]
    assert np.mean(same) >= 0.98


def test_users_are_ranked_alike_alone_and_in_a_batch(sample: Sample, engine: Engine) -> None:
    """Users with and without a filter of their own share a batch."""
    queries = [
        query if number % 3 else replace(query, eligible=None, new_only=True)
        for number, query in enumerate(sample.visitors[:12])
    ]
    together = rank(engine, queries, LARGE)
    for query, found in zip(queries, together, strict=True):
        (alone,) = rank(engine, [query], LARGE)
        assert top_of(alone)[:PAGE] == top_of(found)[:PAGE]


def test_rated_and_unrated_items_are_no_candidates(sample: Sample, engine: Engine) -> None:
    """With `new_only`, neither items that the user rated nor those without ratings are found."""
    old = engine.data.matrix
    is_kept = old.items % 5 > 0
    matrix = RatingsMatrix.of(
        old.users[is_kept], old.items[is_kept], old.ratings[is_kept], old.user_count, old.item_count
    )
    data = ReleaseData(matrix, engine.data.baseline, dislike_limit=engine.data.dislike_limit)
    fewer = replace(engine, data=data, rankers={})
    many = np.arange(1, 2 * RETRIEVED, dtype=np.int32)  # More than a model retrieves.
    stars = np.full(len(many), 4.0, np.float32)
    for query in (*sample.visitors[:5], Query(-1, many, stars, None), Query(7, many, stars, None)):
        asked = replace(query, eligible=None, new_only=True)
        (found,) = rank(fewer, [asked], LARGE)
        assert len(top_of(found)) == LARGE.top_count
        assert not set(top_of(found)) & set(fewer.profiles([asked]).items.tolist())
        assert all(item % 5 for item in top_of(found))


@pytest.mark.parametrize("count", [0, 1, 30, RETRIEVED + 20])
def test_a_filter_that_few_items_pass_still_fills_the_shortlist(
    sample: Sample, engine: Engine, count: int
) -> None:
    """All items that pass are found, even if every model ranks them last."""
    query = sample.visitors[4]
    assert query.eligible is not None
    scores = exact_ranking(sample, query)
    worst = np.argsort(np.where(query.eligible, scores, np.inf), kind="stable")[:count]
    allowed = np.zeros_like(query.eligible)
    allowed[worst] = True
    (found,) = rank(engine, [replace(query, eligible=allowed)], replace(LARGE, top_count=200))
    assert set(top_of(found)) == set(worst.tolist())
