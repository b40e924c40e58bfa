"""The models that the CF service serves."""

from __future__ import annotations

from marquee_services.scoring.bayesian_mf import BayesianMFScorer
from marquee_services.scoring.ease import EASEScorer
from marquee_services.scoring.ials import IALSScorer
from marquee_services.scoring.item_cf import ItemCFScorer
from marquee_services.scoring.scorer import LoadScorer
from marquee_services.scoring.slit import SLITScorer
from marquee_services.scoring.user_cf import UserCFScorer

# By name on the wire, what reads the model's artifacts.
CF_SCORERS: dict[str, LoadScorer] = {
    "user_cf": UserCFScorer.load,
    "item_cf": ItemCFScorer.load,
    "ease": EASEScorer.load,
    "slit": SLITScorer.load,
    "bayesian_mf": BayesianMFScorer.load,
    "ials": IALSScorer.load,
}
