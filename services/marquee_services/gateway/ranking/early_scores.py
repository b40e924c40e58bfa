"""Scores the whole catalogue with rating predictors while another backend still ranks it.

Stars are predicted for the items of a page only, so a backend that does not rank must wait for the
ranking. If the backends are idle, it is faster to score all items meanwhile and to use the scores
of those on the page. This takes more CPU time, so it is not done for several answers at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager

from marquee.v1 import types_pb2
from marquee_core.arrays import Float32, Int32
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.ensemble_calls import ModelSelection
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.scoring.plan import Query
from marquee_services.server.admission.priority import PRIORITY, Priority

# With more items, scoring all of them takes longer than ranking them and scoring a page.
_MAX_ITEMS = 5_000
# The ranking takes longer, so its call leaves first, after about ten turns of the event loop.
_TURNS = 12


class EarlyScores(AbstractContextManager["EarlyScores"]):
    """The scores of a whole catalogue by models that do not rank, which may still be computed."""

    def __init__(self, calls: list[asyncio.Task[dict[str, Float32]]]) -> None:
        """Waits for calls that each score all items with the models of one backend."""
        self._calls = calls

    async def at(self, items: Int32) -> dict[str, Float32]:
        """Returns the scores of some items by the model's name, once they have been computed.

        Models of a backend that has failed are missing.

        Args:
            items: The item indexes (int32, C).
        """
        scores: dict[str, Float32] = {}
        for call in self._calls:
            try:
                scores |= {name: values[items] for name, values in (await call).items()}
            except BackendError:
                continue  # The caller calls the backend for the missing scores, and so sees why.
        return scores

    def __exit__(self, *_: object) -> None:
        """Cancels the calls whose scores are not needed any more."""
        for call in self._calls:
            call.cancel()
            if call.done() and not call.cancelled():
                call.exception()  # Otherwise, asyncio would log an error that nobody has read.


NO_EARLY_SCORES = EarlyScores([])
_WHOLE_ENSEMBLE = ModelSelection()


def begin_early_scores(
    backends: Mapping[str, AnyBackend],
    release: GatewayRelease,
    subject: ResolvedSubject,
    selection: ModelSelection,
    deadline: Deadline,
) -> EarlyScores:
    """Begins to score a small catalogue with the rating predictors of backends that do not rank.

    Does nothing unless the whole ensemble answers and all of its backends are idle.

    Args:
        backends: All backends by name.
        release: The release that answers.
        subject: The subject, resolved with that release.
        selection: The models to use.
        deadline: The time that the backends have.

    Returns:
        The scores, in a context that ends once they are not needed any more.
    """
    if (
        release.item_count > _MAX_ITEMS
        or selection != _WHOLE_ENSEMBLE
        or subject.kind == types_pb2.SUBJECT_KIND_COLD_START
        or PRIORITY.get() is not Priority.INTERACTIVE
        or not all(backends[name].is_idle for name in release.backends)
        or not all(backends[name].serves(release.release_id) for name in release.backends)
    ):
        return NO_EARLY_SCORES
    query = subject.query(None)
    return EarlyScores(
        [
            asyncio.create_task(
                _score(backends[name], release.release_id, query, models, deadline.left())
            )
            for name, models in _late_models(release).items()
        ]
    )


def _late_models(release: GatewayRelease) -> dict[str, tuple[str, ...]]:
    """Returns the rating predictors of each backend whose models have no part in the ranking."""
    blends = release.ensemble.by_backends[release.backends]

    def compute() -> dict[str, tuple[str, ...]]:
        ranking = {release.models[name].backend for name in blends.ranking.weights}
        late: dict[str, tuple[str, ...]] = {}
        for name in blends.rating.weights:
            backend = release.models[name].backend
            if backend in release.backends - ranking:
                late[backend] = (*late.get(backend, ()), name)
        return late if ranking & release.backends else {}

    return release.cached((blends.rating, blends.ranking), ("late models",), compute)


async def _score(
    backend: AnyBackend, release_id: str, query: Query, models: tuple[str, ...], timeout: float
) -> dict[str, Float32]:
    """Scores all items with some models of a backend."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return await backend.call(
        release_id, timeout, lambda replica, left: replica.score(release_id, query, models, left)
    )
