"""Ranks and scores with the models of all backends, and continues without those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.retrieval.top import union_of
from marquee_core.service_names import GATEWAY
from marquee_services.errors import DeadlineExceeded, ModelAbstains, ModelUnavailable
from marquee_services.gateway.backends.failures import BackendError, BackendFailure
from marquee_services.gateway.backends.interface import AnyBackend, AnyReplica
from marquee_services.gateway.backends.ranking import BackendRanking
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.ensemble_calls import EnsembleCalls, ModelSelection
from marquee_services.gateway.ranking.filters import EligibleItems
from marquee_services.gateway.ranking.model_shedding import ModelLoad, slowest_models
from marquee_services.gateway.ranking.own_models import (
    best_in_order,
    own_best,
    own_outputs,
    own_ranking,
    replace_abstentions,
)
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.ranking.shortlists import plans_of, shortlist_of
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.scoring.plan import RankingPlan
from marquee_services.scoring.similarities import Comparison, Similarities


class Router:
    """Ranks and scores items for subjects with the ensemble of a release."""

    def __init__(self, backends: Mapping[str, AnyBackend]) -> None:
        """Creates a router to the given backends, keyed by name."""
        self.backends = backends
        self._model_load = ModelLoad()

    def can_use_full_ensemble(self, release: GatewayRelease) -> bool:
        """Returns whether every backend of a release is healthy and has loaded it."""
        return all(self.backends[name].serves(release.release_id) for name in release.backends)

    def is_limited_by_models(self) -> bool:
        """Returns whether a backend computes with models most of the time; see `ModelLoad`."""
        return self._model_load.is_high(
            {name: sum(b.model_seconds.values()) for name, b in self.backends.items()}
        )

    def slowest_models(self, release: GatewayRelease) -> frozenset[str]:
        """Returns the models of a release's full ensemble to leave out under overload.

        Args:
            release: The release.
        """
        seconds: dict[str, float] = {}
        for name in release.backends:
            seconds |= self.backends[name].model_seconds
        return slowest_models(release, release.ensemble.by_backends[release.backends], seconds)

    async def rank(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        items: Int32 | None,
        eligible: EligibleItems,
        best_count: int,
        selection: ModelSelection,
        deadline: Deadline,
        stars_count: int = 0,
        top_count: int = 0,
    ) -> RankedCandidates:
        """Ranks candidates with the models that have a weight in the ranking blend.

        If a backend fails, the others rank again with the blend that was learned without it, which
        may use other models. If only one backend ranks and a shortlist is enough, the backend
        returns just the shortlist, which makes the answer cheap for the gateway.

        Args:
            release: The release that ranks.
            subject: The subject, resolved with that release.
            items: The candidates' item indexes, all of them eligible (int32); None for the whole
                catalogue.
            eligible: The items that may be recommended.
            best_count: The maximum number of best items of each model.
            selection: The models to use.
            deadline: The time that the backends have.
            stars_count: The number of best items that the ranking backends also score with their
                rating predictors. This saves a call if these items are shown.
            top_count: How many of the best candidates suffice when the whole catalogue is ranked;
                0 to return all.

        Raises:
            ModelNotFound: The release does not have the selected model.
            ModelUnavailable: The backend of the selected model did not answer.
            DeadlineExceeded: The deadline passed before the selected model answered.
            ModelAbstains: The selected model cannot rank for this subject.
            BackendError: A required backend did not answer.
        """
        calls = EnsembleCalls(self.backends, release, subject, selection, deadline)
        if items is None:
            query = subject.query(None, eligible.for_backend, eligible.derivable_by_backend)
        else:
            query = subject.query(items)
        # By backend, its plan and its ranking by that plan.
        rankings: dict[str, tuple[RankingPlan, BackendRanking]] = {}
        while True:
            available, blends = calls.available, calls.blends
            plans = plans_of(release, calls, best_count, stars_count, top_count)
            calls.check(available - plans.keys())
            answers = await calls.gather(
                {
                    name: plan
                    for name, plan in plans.items()
                    if name not in rankings or rankings[name][0] != plan
                },
                lambda replica, plan, left: replica.rank(release.release_id, query, plan, left),
            )
            rankings |= {name: (plans[name], answer) for name, answer in answers.items()}
            if calls.available == available:
                if not any(rankings[name][1].lacks_scores for name in plans):
                    break
                # A model cannot score the subject, so the shortlist is incomplete.
                top_count = 0
        found = [rankings[name][1] for name in plans]
        abstaining = [name for ranking in found for name in ranking.abstaining]
        if selection.model in abstaining:
            raise ModelAbstains(selection.model)
        if len(found) == 1 and found[0].top is not None:
            (plan,) = plans.values()
            own = shortlist_of(release, subject, eligible, best_count, blends, plan, found[0].top)
        else:
            scores = own_ranking(release, subject, items, blends.ranking, abstaining)
            best = own_best(release, subject, blends.ranking, items, eligible, best_count)
            for ranking in found:
                scores += ranking.scores
                best.update(ranking.best)
            own = {"items": items, "scores": scores, "best": best}
        return RankedCandidates(
            best_count=best_count,
            blends=blends,
            backends=available,
            failures=tuple(calls.failures),
            abstaining=tuple(abstaining),
            replicas=calls.replicas,
            scored=tuple(ranking.stars for ranking in found if ranking.stars is not None),
            **own,
        )

    async def score(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        items: Int32,
        selection: ModelSelection,
        deadline: Deadline,
        known: Mapping[str, Float32] | None = None,
        with_ranking: bool = False,
        replicas: Mapping[str, AnyReplica] | None = None,
    ) -> ScoredCandidates:
        """Scores items with each model that has a weight in the rating blend.

        If a backend fails, the others score with the blend that was learned without it.

        Args:
            release: The release that scores.
            subject: The subject, resolved with that release.
            items: The item indexes (int32, C).
            selection: The models to use.
            deadline: The time that the backends have.
            known: Scores that are already known, by the model's name (float32, C).
            with_ranking: Whether to score with the models of the ranking blend too.
            replicas: The replicas that ranked for the same request, by backend.

        Raises:
            ModelNotFound: The release does not have the selected model.
            ModelUnavailable: The backend of the selected model did not answer.
            DeadlineExceeded: The deadline passed before the selected model answered.
            ModelAbstains: The selected model cannot score this subject.
            BackendError: A required backend did not answer.
        """
        calls = EnsembleCalls(self.backends, release, subject, selection, deadline, replicas)
        omitted = len(calls.failures)
        query = subject.query(items)
        outputs = dict(known or {})
        while True:
            available, blends = calls.available, calls.blends
            models = blends.models() if with_ranking else tuple(blends.rating.weights)
            outputs = own_outputs(release, subject, items, models) | outputs
            missing: dict[str, list[str]] = {}
            for model in models:
                if model not in outputs:
                    missing.setdefault(release.models[model].backend, []).append(model)
            answers = await calls.gather(
                {name: tuple(missing[name]) for name in missing if name in available},
                lambda replica, names, left: replica.score(release.release_id, query, names, left),
            )
            for answer in answers.values():
                outputs.update(answer)
            if calls.available == available:
                break
        abstaining = replace_abstentions(outputs, models, release)
        if selection.model in abstaining:
            raise ModelAbstains(selection.model)
        data = release.manifest.data
        return ScoredCandidates(
            outputs,
            blends,
            (data.rating_min, data.rating_max),
            tuple(calls.failures[omitted:]),
            tuple(abstaining),
        )

    async def retrieve(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        eligible: Bool,
        count: int,
        selection: ModelSelection,
        deadline: Deadline,
    ) -> tuple[Int32, list[BackendFailure]]:
        """Generates candidates: the union of the best eligible items of each ranking model.

        The gateway's own models also retrieve, so there are candidates even if no backend answers.

        Args:
            release: The release that retrieves.
            subject: The subject, resolved with that release.
            eligible: Whether each item of the catalogue may be retrieved (bool, items).
            count: The number of items that each model retrieves.
            selection: The models to use.
            deadline: The time that the backends have.

        Returns:
            The candidates' item indexes (int32, ascending), and the failures of backends that did
            not answer.

        Raises:
            ModelNotFound: The release does not have the selected model.
            ModelUnavailable: The backend of the selected model did not answer.
            DeadlineExceeded: The deadline passed before the selected model answered.
            BackendError: A required backend did not answer.
        """
        calls = EnsembleCalls(self.backends, release, subject, selection, deadline)
        omitted = len(calls.failures)
        query = subject.query(None)
        parts = {name: release.weights_of(calls.blends.ranking, name) for name in calls.available}
        answers = await calls.gather(
            {name: part for name, part in parts.items() if part},
            lambda replica, part, left: replica.retrieve(
                release.release_id, query, tuple(name for name, _ in part), count, eligible, left
            ),
        )
        found = [items for answer in answers.values() for items in answer]
        if not selection.model or release.model(selection.model).backend == GATEWAY:
            for name, scores in release.own_scores.items():
                if selection.model in ("", name):
                    top, _ = best_in_order(release.orders[name], scores, eligible, count)
                    found.append(top)
        return union_of(found), calls.failures[omitted:]

    async def compare(
        self,
        release: GatewayRelease,
        comparison: Comparison,
        model: str,
        deadline: Deadline,
    ) -> tuple[dict[str, Similarities], list[BackendFailure]]:
        """Computes the similarities of an item to the items of a release.

        Args:
            release: The release of the items.
            comparison: The item, and the items to compare it with.
            model: The only model to use; "" for all models that have item similarities.
            deadline: The time that the backends have.

        Returns:
            The similarities by model, and the failures of backends that did not answer.

        Raises:
            ModelNotFound: The release does not have the model.
            ModelUnavailable: The model's backend did not answer.
            DeadlineExceeded: The deadline passed before the model answered.
            ModelAbstains: The model has no item similarities.
        """
        names = sorted(({release.model(model).backend} if model else release.backends) - {GATEWAY})
        results = await asyncio.gather(
            *(
                self.backends[name].call(
                    release.release_id,
                    deadline.left(),
                    lambda replica, left: replica.compare(release.release_id, comparison, left),
                )
                for name in names
            ),
            return_exceptions=True,
        )
        rows: dict[str, Similarities] = {}
        failures: list[BackendFailure] = []
        for result in results:
            if isinstance(result, BackendError):
                failures.append(result.reason)
            elif isinstance(result, BaseException):
                raise result
            else:
                rows |= result
        if failures and model:
            if deadline.left() <= 0:
                raise DeadlineExceeded
            raise ModelUnavailable(model)
        if model and model not in rows:
            raise ModelAbstains(model)
        return ({model: rows[model]} if model else rows), failures
