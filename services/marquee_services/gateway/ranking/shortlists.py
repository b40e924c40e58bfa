"""Shortlists: the best items of a catalogue, as ranked by the only backend that ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marquee_core.release.ensemble import BlendPair
from marquee_services.gateway.backends.failures import BackendFailure
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.gateway.backends.ranking import BackendRanking
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.ensemble_calls import EnsembleCalls, ModelSelection
from marquee_services.gateway.ranking.filters import EligibleItems
from marquee_services.gateway.ranking.own_models import own_best, own_ranking
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.scoring.plan import MAX_TOP_MODELS, RankingPlan, TopItems


async def retrieve_shortlist(
    backends: Mapping[str, AnyBackend],
    release: GatewayRelease,
    subject: ResolvedSubject,
    eligible: EligibleItems,
    best_count: int,
    selection: ModelSelection,
    deadline: Deadline,
    stars_count: int,
    top_count: int,
    retrieve_count: int,
) -> tuple[RankedCandidates | None, tuple[BackendFailure, ...]]:
    """Retrieves and ranks candidates of a large catalogue in one call to the ranking backend.

    Args:
        backends: All backends by name.
        release: The release that ranks.
        subject: The subject, resolved with that release.
        eligible: The items that may be recommended.
        best_count: The maximum number of best items of each model.
        selection: The models to use.
        deadline: The time that the backends have.
        stars_count: The number of best items that the backend also scores with its rating
            predictors.
        top_count: The maximum length of the shortlist.
        retrieve_count: The number of candidates that each model retrieves.

    Returns:
        The best candidates; None if several backends or none rank, or if a model cannot score the
        subject. Also the failures of backends.

    Raises:
        BackendError: A required backend did not answer.
    """
    calls = EnsembleCalls(backends, release, subject, selection, deadline)
    query = subject.query(None, eligible.for_backend, eligible.derivable_by_backend)
    answers: dict[str, BackendRanking] = {}
    while not answers:
        available, blends = calls.available, calls.blends
        plans = plans_of(release, calls, best_count, stars_count, top_count, retrieve_count)
        if len(plans) != 1 or not all(plan.top_count for plan in plans.values()):
            return None, tuple(calls.failures)
        calls.check(available - plans.keys())
        if calls.available == available:
            answers = await calls.gather(
                plans,
                lambda replica, plan, left: replica.rank(release.release_id, query, plan, left),
            )
    ((name, ranking),) = answers.items()
    if ranking.lacks_scores or ranking.top is None:
        return None, tuple(calls.failures)
    plan = plans[name]
    own = shortlist_of(release, subject, eligible, best_count, blends, plan, ranking.top)
    ranked = RankedCandidates(
        best_count=best_count,
        blends=blends,
        backends=available,
        failures=tuple(calls.failures),
        replicas=calls.replicas,
        scored=() if ranking.stars is None else (ranking.stars,),
        **own,
    )
    return ranked, ranked.failures


def plans_of(
    release: GatewayRelease,
    calls: EnsembleCalls,
    best_count: int,
    stars_count: int,
    top_count: int,
    retrieve_count: int = 0,
) -> dict[str, RankingPlan]:
    """Returns the ranking plan of each backend that takes part in the ranking, by its name."""
    blends, available = calls.blends, calls.available

    def compute() -> dict[str, RankingPlan]:
        plans = {
            name: plan
            for name in available
            if (plan := release.plan(blends, name, best_count, stars_count)).weights
        }
        if top_count and len(plans) == 1:
            ((name, plan),) = plans.items()
            if len(plan.weights) <= MAX_TOP_MODELS:
                counts = best_count, stars_count, top_count, retrieve_count
                plan = release.plan(blends, name, *counts)
            return {name: plan}
        return plans

    what = "plans", available, best_count, stars_count, top_count, retrieve_count
    return release.cached((blends.rating, blends.ranking), what, compute)


def shortlist_of(
    release: GatewayRelease,
    subject: ResolvedSubject,
    eligible: EligibleItems,
    best_count: int,
    blends: BlendPair,
    plan: RankingPlan,
    top: TopItems,
) -> dict[str, Any]:
    """Returns the fields of `RankedCandidates` for the best items that a backend found."""
    subject.set_bias(top.bias)
    scores = own_ranking(release, subject, top.items, blends.ranking, ())
    scores += top.scores
    items, proposers = top.items, top.proposers
    # The backend's sums are less precise, so the order may differ.
    if (scores[1:] > scores[:-1]).any():
        order = np.lexsort((items, -scores))
        items, scores, proposers = items[order], scores[order], proposers[order]
    return {
        "items": items,
        "scores": scores,
        "best": own_best(release, subject, blends.ranking, None, eligible, best_count),
        "top_count": plan.top_count,
        "proposing": tuple(name for name, _ in plan.weights),
        "proposers_of": proposers,
    }
