"""The models of a ranking plan, which are selected once for each plan and cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import Approximates, Scorer, implements
from marquee_services.errors import ModelNotFound
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.model_times import Timer
from marquee_services.scoring.plan import RankingPlan

# The most plans whose models are cached; there is about one for each page size in use.
_MAX_RANKERS = 64
# This many times `retrieve_count` best items of the gateway's own models are cached for each plan.
_SHARED = 8


@dataclass(frozen=True)
class Ranker:
    """The models of a plan, ready to rank.

    Attributes:
        plan: The plan.
        scorers: The scorers of the models that rank.
        stars_scorers: The scorers of the models that score the best items.
        shared: The weighted sum of the gateway's own models (float32, items).
        weights: The weight of each model that ranks.
        approximating: The scorers in `scorers` that can approximate their scores.
        timer: Measures the time of the models.
        baseline: The baseline of the release.
    """

    plan: RankingPlan
    scorers: Mapping[str, Scorer]
    stars_scorers: Mapping[str, Scorer]
    shared: Float32
    weights: Mapping[str, np.float32]
    approximating: Mapping[str, Approximates]
    timer: Timer
    baseline: Baseline

    def best_shared(self, count: int, mask: Bool | None) -> Int32:
        """Returns the best items of the gateway's own models (int32, at most `count`).

        Args:
            count: The number of items.
            mask: Whether each item may be returned (bool, items); None for all.
        """
        best = self._best_shared
        if mask is not None:
            best = best[mask[best]]
        if len(best) < count and len(self._best_shared) < len(self.shared):
            # Few of the best items pass the filter, so the whole catalogue is searched.
            return top_indexes(self.shared, count, mask).astype(np.int32)
        return best[:count]

    @cached_property
    def _best_shared(self) -> Int32:
        """The best items of the gateway's own models, enough for most filters (int32)."""
        return top_indexes(self.shared, _SHARED * self.plan.retrieve_count).astype(np.int32)


def check_plan(engine: Engine, plan: RankingPlan) -> None:
    """Checks that a backend has the models of a plan.

    Raises:
        ModelNotFound: A model is missing.
    """
    ranker_for(engine, plan)


def ranker_for(engine: Engine, plan: RankingPlan) -> Ranker:
    """Returns the models of a plan, from the engine's cache if possible.

    Raises:
        ModelNotFound: This backend lacks one of the models.
    """
    found = engine.rankers.get(plan)
    if found is None:
        if len(engine.rankers) >= _MAX_RANKERS:
            engine.rankers.clear()
        found = engine.rankers[plan] = _new_ranker(engine, plan)
    ranker: Ranker = found
    return ranker


def _new_ranker(engine: Engine, plan: RankingPlan) -> Ranker:
    shared = np.zeros(engine.data.matrix.item_count, dtype=np.float32)
    for name, weight in plan.gateway_weights:
        if name not in engine.gateway_scores:
            raise ModelNotFound(name)
        shared += np.float32(weight) * engine.gateway_scores[name]
    stars = engine.select(plan.stars_models) if plan.stars_models else {}
    scorers = engine.select([name for name, _ in plan.weights])
    return Ranker(
        plan,
        scorers,
        stars,
        shared,
        {name: np.float32(weight) for name, weight in plan.weights},
        {
            name: cast("Approximates", scorer)
            for name, scorer in scorers.items()
            if implements(type(scorer), Approximates)
        },
        engine.timer,
        engine.data.baseline,
    )
