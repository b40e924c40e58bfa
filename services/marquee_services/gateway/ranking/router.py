"""Collects scores from the backends in parallel, and goes on without those that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from marquee.v1 import types_pb2
from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.output import Output
from marquee_core.release.ensemble import BASELINE, POPULARITY, RECENT_POPULARITY
from marquee_core.retrieval.top import top_indexes
from marquee_core.service_names import GATEWAY
from marquee_services.errors import DeadlineExceeded, ModelAbstains, ModelUnavailable
from marquee_services.gateway.backends.backend import Backend
from marquee_services.gateway.backends.failures import BackendError, Failure
from marquee_services.gateway.backends.replica import Replica
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease

_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelSelection:
    """Which models of a release score a request.

    Attributes:
        model: The only model to use; "" for the whole ensemble.
        required_backends: The backends to use, all of which must answer: those that ranked the
            list's first page. None to use every backend of the release that answers.
    """

    model: str = ""
    required_backends: frozenset[str] | None = None


class Router:
    """Scores subjects with the ensemble of a release."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        """Routes to the given backends, keyed by name."""
        self.backends = backends

    def can_use_full_ensemble(self, release: GatewayRelease) -> bool:
        """Whether every backend that a release needs is healthy and has loaded it."""
        return all(self.backends[name].serves(release.release_id) for name in release.backends)

    async def score(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        items: Int32 | None,
        selection: ModelSelection,
        deadline: Deadline,
    ) -> ScoredCandidates:
        """Scores candidates for a subject.

        Args:
            release: The release that scores.
            subject: The subject, resolved with that release.
            items: The candidates' item indexes (int32); None for the whole catalogue.
            selection: The models to use.
            deadline: How long the backends may take.

        Raises:
            ModelNotFound: The release has no model of the selected name.
            ModelUnavailable: The backend of the selected model did not answer.
            DeadlineExceeded: The deadline passed before the selected model answered.
            ModelAbstains: The selected model cannot score this subject.
            BackendError: A required backend did not answer.
        """
        backends = self._backends_to_call(release, subject, selection)
        models = (selection.model,) if selection.model and backends else ()
        query = subject.query(items)
        answers, failures = await self._call_backends(
            backends,
            release,
            deadline,
            lambda replica, left: replica.score(release.release_id, query, models, left),
        )
        _raise_if_required(failures, selection, deadline)
        outputs = _gateway_outputs(release, subject, items)
        for answer in answers.values():
            outputs.update(answer)
        if selection.model:
            is_stars = release.model(selection.model).output is Output.STARS
            blends = release.ensemble.alone(selection.model, is_stars)
        else:
            blends = release.ensemble.blends(sorted(answers))
        abstaining = _replace_abstentions(outputs, blends.models(), release)
        if selection.model in abstaining:
            raise ModelAbstains(selection.model)
        data = release.manifest.data
        return ScoredCandidates(
            items=items,
            outputs={
                name: scores
                for name, scores in outputs.items()
                if name in blends.models() or name == BASELINE
            },
            blends=blends,
            backends=frozenset(answers),
            scale=(data.rating_min, data.rating_max),
            failures=(*failures, *self._omitted_backends(release, subject, selection)),
            abstaining=tuple(abstaining),
        )

    async def retrieve(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        eligible: Bool,
        count: int,
        selection: ModelSelection,
        deadline: Deadline,
    ) -> tuple[Int32, list[BackendError]]:
        """Generates candidates: the union of each model's best eligible items.

        The gateway's own models retrieve as well, so there are candidates even when no backend
        answers.

        Args:
            release: The release that retrieves.
            subject: The subject, resolved with that release.
            eligible: Which items of the catalogue may be retrieved (bool, items).
            count: How many items each model retrieves.
            selection: The models to use.
            deadline: How long the backends may take.

        Returns:
            The candidates' item indexes (int32, ascending), and the failures of backends that did
            not answer.

        Raises:
            ModelNotFound: The release has no model of the selected name.
            ModelUnavailable: The backend of the selected model did not answer.
            DeadlineExceeded: The deadline passed before the selected model answered.
            BackendError: A required backend did not answer.
        """
        query = subject.query(None)
        backends = self._backends_to_call(release, subject, selection)
        models = (selection.model,) if selection.model and backends else ()
        answers, failures = await self._call_backends(
            backends,
            release,
            deadline,
            lambda replica, left: replica.retrieve(
                release.release_id, query, models, count, eligible, left
            ),
        )
        _raise_if_required(failures, selection, deadline)
        found = [items for answer in answers.values() for items in answer]
        if not models:
            pool = np.flatnonzero(eligible).astype(np.int32)
            gateway_scores = _gateway_outputs(release, subject, pool).values()
            found += [pool[top_indexes(scores, count)] for scores in gateway_scores]
        return np.unique(np.concatenate(found)).astype(np.int32), failures

    async def compare(
        self, release: GatewayRelease, item: int, model: str, deadline: Deadline
    ) -> tuple[dict[str, Float32], list[BackendError]]:
        """Compares an item with every item of a release.

        Args:
            release: The release that the items belong to.
            item: The item's index.
            model: The only model to use; "" for all models that have item similarities.
            deadline: How long the backends may take.

        Returns:
            The similarity to every item by model (float32, items), and the failures of backends
            that did not answer.

        Raises:
            ModelNotFound: The release has no model of that name.
            ModelUnavailable: The model's backend did not answer.
            DeadlineExceeded: The deadline passed before the model answered.
            ModelAbstains: The model has no item similarities.
        """
        backends = {release.model(model).backend} if model else release.backends
        answers, failures = await self._call_backends(
            backends - {GATEWAY},
            release,
            deadline,
            lambda replica, left: replica.compare(release.release_id, item, left),
        )
        _raise_if_required(failures, ModelSelection(model), deadline)
        rows = {name: row for answer in answers.values() for name, row in answer.items()}
        if model and model not in rows:
            raise ModelAbstains(model)
        return ({model: rows[model]} if model else rows), failures

    def _backends_to_call(
        self, release: GatewayRelease, subject: ResolvedSubject, selection: ModelSelection
    ) -> frozenset[str]:
        """The backends that score a subject; none for a cold start, which the gateway scores."""
        if selection.model:
            return frozenset({release.model(selection.model).backend}) - {GATEWAY}
        if subject.kind == types_pb2.SUBJECT_KIND_COLD_START:
            return frozenset()
        if selection.required_backends is not None:
            return selection.required_backends
        return release.backends

    def _omitted_backends(
        self, release: GatewayRelease, subject: ResolvedSubject, selection: ModelSelection
    ) -> list[BackendError]:
        """Backends that are not called because they did not take part in the first page."""
        if selection.required_backends is None:
            return []
        full = self._backends_to_call(release, subject, ModelSelection(selection.model))
        called = self._backends_to_call(release, subject, selection)
        return [
            BackendError(name, Failure.UNAVAILABLE, "unavailable when the first page was ranked")
            for name in sorted(full - called)
        ]

    async def _call_backends(
        self,
        names: Collection[str],
        release: GatewayRelease,
        deadline: Deadline,
        call: Callable[[Replica, float], Awaitable[_T]],
    ) -> tuple[dict[str, _T], list[BackendError]]:
        """Calls backends in parallel.

        Returns:
            The answers by backend, and the failures of the backends that did not answer.
        """
        order = sorted(names)
        results = await asyncio.gather(
            *(
                self.backends[name].call(release.release_id, deadline.left(), call)
                for name in order
            ),
            return_exceptions=True,
        )
        answers, failures = {}, []
        for name, result in zip(order, results, strict=True):
            if isinstance(result, BackendError):
                failures.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                answers[name] = result
        return answers, failures


def _raise_if_required(
    failures: list[BackendError], selection: ModelSelection, deadline: Deadline
) -> None:
    """Raises a failure that the rest of the ensemble cannot make up for.

    Raises:
        ModelUnavailable: The backend of the only selected model did not answer.
        DeadlineExceeded: It had no time left to answer.
        BackendError: A required backend did not answer.
    """
    if failures and selection.model:
        if deadline.left() <= 0:
            raise DeadlineExceeded
        raise ModelUnavailable(selection.model)
    if failures and selection.required_backends is not None:
        raise failures[0]


def _gateway_outputs(
    release: GatewayRelease, subject: ResolvedSubject, items: Int32 | None
) -> dict[str, Float32]:
    """The scores of the models that the gateway evaluates itself, by model (float32)."""
    outputs = {BASELINE: release.data.baseline.score(subject.profile, items)[0]}
    for name, scores in (
        (POPULARITY, release.popularity),
        (RECENT_POPULARITY, release.recent_popularity),
    ):
        if scores is not None:
            outputs[name] = scores if items is None else scores[items]
    return outputs


def _replace_abstentions(
    outputs: dict[str, Float32], models: Collection[str], release: GatewayRelease
) -> list[str]:
    """Replaces the NaN scores of models that abstain with neutral ones.

    A rating predictor gets the baseline's ratings, a ranker gets zeros.

    Returns:
        The names of the models that abstain.
    """
    abstaining = []
    for name in models:
        if len(outputs[name]) and np.isnan(outputs[name][0]):
            abstaining.append(name)
            is_stars = release.model(name).output is Output.STARS
            outputs[name] = outputs[BASELINE] if is_stars else np.zeros_like(outputs[BASELINE])
    return abstaining
