"""A backend that scores synchronously in this process, with a single release."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from marquee.v1 import scoring_service_pb2 as pb
from marquee_core.arrays import Bool, Float32, Int32
from marquee_services.gateway.backends.failures import BackendFailure, LastError
from marquee_services.gateway.backends.interface import AnyReplica
from marquee_services.gateway.backends.ranking import BackendRanking
from marquee_services.scoring.converters import explain_response
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.ranking import rank
from marquee_services.scoring.similarities import Comparison, Similarities, similarities_of

_T = TypeVar("_T")


class EngineBackend:
    """A backend of the gateway that scores with an engine; implements `AnyBackend`.

    It scores in the calling thread and ignores timeouts, because no caller waits for an answer.
    """

    def __init__(self, name: str, engine: Engine) -> None:
        """Creates a backend.

        Args:
            name: The backend's name, `cf` or `inference`.
            engine: The backend's models of the release.
        """
        self.name = name
        self.target = "in this process"
        self.last_error = LastError()
        self._engine = engine
        self._replica = _EngineReplica(engine)

    @property
    def healthy(self) -> bool:
        """Always True, because the release is loaded."""
        return True

    @property
    def is_idle(self) -> bool:
        """Always False, because it scores in the calling thread."""
        return False

    @property
    def releases(self) -> tuple[str, ...]:
        """The only release."""
        return (self._engine.release_id,)

    @property
    def refused(self) -> Mapping[str, str]:
        """Always empty, because a release that cannot be loaded ends the process."""
        return {}

    @property
    def model_seconds(self) -> Mapping[str, float]:
        """Always empty, because times are not measured."""
        return {}

    def open_circuits(self) -> Sequence[str]:
        """Returns no addresses, because there is no circuit breaker within a process."""
        return ()

    def replica_states(self) -> Sequence[tuple[str, bool]]:
        """Returns the only replica."""
        return [(self.target, True)]

    def serves(self, release_id: str) -> bool:
        """Returns whether the id is that of the backend's release."""
        return release_id == self._engine.release_id

    def failure(self, release_id: str) -> BackendFailure | None:  # noqa: ARG002 - part of the interface
        """Returns None, because the engine always answers."""
        return None

    def keep_loaded(self, release_id: str) -> None:
        """Does nothing, because the release stays loaded."""

    async def call(
        self,
        release_id: str,  # noqa: ARG002 - part of the interface
        timeout: float,
        call: Callable[[AnyReplica, float], Awaitable[_T]],
        preferred: AnyReplica | None = None,  # noqa: ARG002 - there is only one replica
    ) -> _T:
        """Calls the only replica."""
        return await call(self._replica, timeout)

    async def watch(self) -> None:
        """Returns immediately, because the state never changes."""

    async def close(self) -> None:
        """Does nothing, because there are no connections."""


class _EngineReplica:
    """Scores with an engine; implements `AnyReplica`, see `Replica` for the methods."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(
        self,
        release_id: str,  # noqa: ARG002
        query: Query,
        models: tuple[str, ...],
        timeout: float,  # noqa: ARG002
    ) -> dict[str, Float32]:
        return self._engine.score([query], models)

    async def rank(
        self,
        release_id: str,  # noqa: ARG002
        query: Query,
        plan: RankingPlan,
        timeout: float,  # noqa: ARG002
    ) -> BackendRanking:
        (found,) = rank(self._engine, [query], plan)
        return BackendRanking(
            found.scores, dict(found.best), list(found.abstaining), found.stars, found.top
        )

    async def retrieve(
        self,
        release_id: str,  # noqa: ARG002
        query: Query,
        models: tuple[str, ...],
        count: int,
        eligible: Bool,
        timeout: float,  # noqa: ARG002
    ) -> list[Int32]:
        best = self._engine.retrieve([query], models, count, eligible)
        return [items for rows in best.values() for items, _ in rows]

    async def compare(
        self,
        release_id: str,  # noqa: ARG002
        comparison: Comparison,
        timeout: float,  # noqa: ARG002
    ) -> dict[str, Similarities]:
        return similarities_of(self._engine, comparison)

    async def explain(
        self,
        release_id: str,
        query: Query,
        models: Sequence[str],
        count: int,
        timeout: float,  # noqa: ARG002
    ) -> Sequence[pb.ExplainItemsResponse.ItemEvidence]:
        evidence = self._engine.explain(query, models, count)
        return explain_response(release_id, evidence).items
