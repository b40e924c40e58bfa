"""Engines that score exactly where a server first approximates.

A server finds a user's best items by approximate scores, and scores only these exactly. For a whole
block of users, one matrix product is cheaper than gathering the parameters of each user's items,
and gives the same lists. With Bayesian MF and 3,000 items, a list takes a quarter less CPU time.
"""

from __future__ import annotations

from dataclasses import replace

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.scorer import Approximates, Scorer, score_pairs
from marquee_services.scoring.engine import Engine

# In larger catalogues, approximation is cheaper.
_MAX_ITEMS = 6_000


class _ExactScorer:
    """A scorer without its approximation, for ranking and predicting only."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def output(self) -> Output:
        return self._scorer.output

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        return self._scorer.score(profiles, items)

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        return score_pairs(self._scorer, profiles, items)


def exact_engine(engine: Engine) -> Engine:
    """Returns an engine for blocks of users, which is exact unless the catalogue is too large."""
    if engine.data.matrix.item_count > _MAX_ITEMS:
        return engine
    scorers = {
        name: _ExactScorer(scorer) if isinstance(scorer, Approximates) else scorer
        for name, scorer in engine.scorers.items()
    }
    return replace(engine, scorers=scorers, rankers={})
