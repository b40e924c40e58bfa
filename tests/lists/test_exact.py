"""Exact scoring in blocks gives the lists of servers, which approximate first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.scorer import Approximates
from marquee_services.lists import exact
from marquee_services.lists.exact import exact_engine
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.ranking import rank
from toy.release import ITEMS, ToyScorer, toy_data


class ApproximatingScorer(ToyScorer):
    """A toy model whose approximation is slightly off."""

    def approximate(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Implements `Approximates.approximate`."""
        scores = self.score(profiles, items)
        noise = np.random.default_rng(0).normal(0.0, 1e-3, scores.shape)
        return (scores + noise).astype(np.float32)


@pytest.fixture
def engine() -> Engine:
    """An engine with one model that approximates."""
    _, _, data = toy_data(0)
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 4)).astype(np.float32)
    return Engine("release", data, {"rough": ApproximatingScorer(vectors, data, Output.AFFINITY)})


def test_exact_lists_equal_those_found_by_approximation(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The approximation only selects the items that are then scored exactly."""
    none: tuple[Int32, Float32] = (np.empty(0, np.int32), np.empty(0, np.float32))
    queries = [Query(user, *none, None) for user in range(8)]
    plan = RankingPlan((("rough", 1.0),), 20)
    alike = exact_engine(engine)
    assert isinstance(engine.scorers["rough"], Approximates)
    assert not isinstance(alike.scorers["rough"], Approximates)
    for found, expected in zip(
        rank(alike, queries, plan), rank(engine, queries, plan), strict=True
    ):
        np.testing.assert_array_equal(found.best["rough"][0], expected.best["rough"][0])
        np.testing.assert_allclose(found.best["rough"][1], expected.best["rough"][1], rtol=1e-5)
    monkeypatch.setattr(exact, "_MAX_ITEMS", ITEMS - 1)
    assert exact_engine(replace(engine)).scorers == engine.scorers
