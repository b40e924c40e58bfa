"""Asks the backends for scores, in parallel, and goes on without those that do not answer."""

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
from marquee_services.errors import DeadlineExceeded, ModelAbstains, ModelUnavailable
from marquee_services.gateway.backends.backend import Backend
from marquee_services.gateway.backends.failures import BackendError, Failure
from marquee_services.gateway.backends.replica import Replica
from marquee_services.gateway.ranking.scored import Scored
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease

_T = TypeVar("_T")


class Deadline:
    """When an answer is due, less what is kept back to give it."""

    def __init__(self, seconds: float, reserve: float) -> None:
        """Takes seconds from now, and seconds kept back."""
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds - reserve

    def left(self) -> float:
        """Seconds that backends still have."""
        return self._due - self._loop.time()


@dataclass(frozen=True)
class ScoreOptions:
    """What part of a release's ensemble is to answer.

    Attributes:
        model: One model alone; "" for the ensemble.
        backends: The backends that must answer, as they did for the page before; None for all
            that can.
    """

    model: str = ""
    backends: frozenset[str] | None = None


class Router:
    """Scores subjects with the ensemble of a release."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        """Takes the backends by name."""
        self.backends = backends

    def is_whole(self, release: GatewayRelease) -> bool:
        """Whether every backend of a release is there and holds it."""
        return all(self.backends[name].serves(release.release_id) for name in release.backends)

    async def score(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        items: Int32 | None,
        wanted: ScoreOptions,
        deadline: Deadline,
    ) -> Scored:
        """Scores candidates, or the whole catalogue for None.

        Raises:
            ModelNotFound: The release has no such model.
            ModelUnavailable: The model that is to answer alone did not.
            ModelAbstains: The model that is to answer alone cannot answer this subject.
            BackendError: A backend that must answer did not.
        """
        asked = self._asked(release, subject, wanted)
        models = (wanted.model,) if wanted.model and asked else ()
        query = subject.query(items)
        answers, failures = await self._ask(
            asked,
            release,
            deadline,
            lambda r, left: r.score(release.release_id, query, models, left),
        )
        self._insist(wanted, failures, deadline)
        outputs = self._gateway_outputs(release, subject, items)
        for answer in answers.values():
            outputs.update(answer)
        if wanted.model:
            is_stars = release.model(wanted.model).output is Output.STARS
            blends = release.ensemble.alone(wanted.model, is_stars)
        else:
            blends = release.ensemble.blends(sorted(answers))
        abstaining = self._fill_in(outputs, blends.models(), release)
        if wanted.model in abstaining:
            raise ModelAbstains(wanted.model)
        data = release.manifest.data
        return Scored(
            items=items,
            outputs={
                name: scores
                for name, scores in outputs.items()
                if name in blends.models() or name == BASELINE
            },
            blends=blends,
            backends=frozenset(answers),
            scale=(data.rating_min, data.rating_max),
            failures=(*failures, *self._left_out(release, subject, wanted)),
            abstaining=tuple(abstaining),
        )

    async def retrieve(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        eligible: Bool,
        count: int,
        wanted: ScoreOptions,
        deadline: Deadline,
    ) -> tuple[Int32, list[BackendError]]:
        """The union of the models' best items that qualify (int32, ascending).

        The gateway's own models retrieve as well, so there are candidates without any backend;
        told with them is which backends did not answer.

        Raises:
            As `score`.
        """
        query = subject.query(None)
        asked = self._asked(release, subject, wanted)
        models = (wanted.model,) if wanted.model and asked else ()
        answers, failures = await self._ask(
            asked,
            release,
            deadline,
            lambda r, left: r.retrieve(release.release_id, query, models, count, eligible, left),
        )
        self._insist(wanted, failures, deadline)
        found = [items for answer in answers.values() for items in answer]
        if not models:
            pool = np.flatnonzero(eligible).astype(np.int32)
            own = self._gateway_outputs(release, subject, pool).values()
            found += [pool[top_indexes(scores, count)] for scores in own]
        return np.unique(np.concatenate(found)).astype(np.int32), failures

    async def compare(
        self, release: GatewayRelease, item: int, model: str, deadline: Deadline
    ) -> tuple[dict[str, Float32], list[BackendError]]:
        """By model, an item's similarity to every item; and which backends did not answer.

        Raises:
            ModelNotFound: The release has no such model.
            ModelUnavailable: The model that is to answer alone did not.
            ModelAbstains: The model that is to answer alone has no item similarities.
        """
        asked = {release.model(model).backend} if model else release.backends
        answers, failures = await self._ask(
            asked - {"gateway"},
            release,
            deadline,
            lambda r, left: r.compare(release.release_id, item, left),
        )
        self._insist(ScoreOptions(model), failures, deadline)
        rows = {name: row for answer in answers.values() for name, row in answer.items()}
        if model and model not in rows:
            raise ModelAbstains(model)
        return ({model: rows[model]} if model else rows), failures

    def _asked(
        self, release: GatewayRelease, subject: ResolvedSubject, wanted: ScoreOptions
    ) -> frozenset[str]:
        """The backends to ask: none for a subject of whom nothing is known."""
        if wanted.model:
            return frozenset({release.model(wanted.model).backend}) - {"gateway"}
        if subject.kind == types_pb2.SUBJECT_KIND_COLD_START:
            return frozenset()
        return release.backends if wanted.backends is None else wanted.backends

    async def _ask(
        self,
        names: Collection[str],
        release: GatewayRelease,
        deadline: Deadline,
        call: Callable[[Replica, float], Awaitable[_T]],
    ) -> tuple[dict[str, _T], list[BackendError]]:
        """Calls backends in parallel; answers by name, and the errors of the others."""
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

    def _insist(
        self, wanted: ScoreOptions, failures: list[BackendError], deadline: Deadline
    ) -> None:
        if failures and wanted.model:
            if deadline.left() <= 0:
                raise DeadlineExceeded
            raise ModelUnavailable(wanted.model)
        if failures and wanted.backends is not None:
            raise failures[0]

    def _left_out(
        self, release: GatewayRelease, subject: ResolvedSubject, wanted: ScoreOptions
    ) -> list[BackendError]:
        """The backends that a further page does without, as the first page did."""
        if wanted.backends is None:
            return []
        whole = self._asked(release, subject, ScoreOptions(wanted.model))
        return [
            BackendError(name, Failure.UNAVAILABLE, "away when the first page was ranked")
            for name in sorted(whole - self._asked(release, subject, wanted))
        ]

    def _gateway_outputs(
        self, release: GatewayRelease, subject: ResolvedSubject, items: Int32 | None
    ) -> dict[str, Float32]:
        outputs = {BASELINE: release.data.baseline.score(subject.profile, items)[0]}
        for name, scores in (
            (POPULARITY, release.popularity),
            (RECENT_POPULARITY, release.recent_popularity),
        ):
            if scores is not None:
                outputs[name] = scores if items is None else scores[items]
        return outputs

    def _fill_in(
        self, outputs: dict[str, Float32], models: Collection[str], release: GatewayRelease
    ) -> list[str]:
        """Puts neutral scores where a model abstains: the baseline's stars, or no affinity."""
        abstaining = []
        for name in models:
            if len(outputs[name]) and np.isnan(outputs[name][0]):
                abstaining.append(name)
                is_stars = release.model(name).output is Output.STARS
                outputs[name] = outputs[BASELINE] if is_stars else np.zeros_like(outputs[BASELINE])
        return abstaining
