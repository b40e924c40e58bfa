"""The models that the CF service serves."""

from __future__ import annotations

from marquee_core.scorers.bayesian_mf import BayesianMFScorer
from marquee_core.scorers.ease import EASEScorer
from marquee_core.scorers.ials import IALSScorer
from marquee_core.scorers.item_cf import ItemCFScorer
from marquee_core.scorers.scorer import LoadScorer
from marquee_core.scorers.slit import SLITScorer
from marquee_core.scorers.user_cf import UserCFScorer

CF_SCORERS: dict[str, LoadScorer] = {
    "user_cf": UserCFScorer.load,
    "item_cf": ItemCFScorer.load,
    "ease": EASEScorer.load,
    "slit": SLITScorer.load,
    "bayesian_mf": BayesianMFScorer.load,
    "ials": IALSScorer.load,
}
"""The function that loads each model's scorer from a release, by the model's name."""
