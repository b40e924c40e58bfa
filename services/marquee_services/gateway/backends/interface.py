"""The interface of a backend, which may run in other processes or in this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from marquee.v1 import scoring_service_pb2 as pb
from marquee_core.arrays import Bool, Float32, Int32
from marquee_services.gateway.backends.failures import BackendFailure, LastError
from marquee_services.gateway.backends.ranking import BackendRanking
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.similarities import Comparison, Similarities

_T = TypeVar("_T")


class AnyReplica(Protocol):
    """Answers calls with the models of one backend; see `Replica` for the methods."""

    async def score(
        self, release_id: str, query: Query, models: tuple[str, ...], timeout: float
    ) -> dict[str, Float32]:
        """Scores a user's candidates with each model."""

    async def rank(
        self,
        release_id: str,
        query: Query,
        plan: RankingPlan,
        timeout: float,
    ) -> BackendRanking:
        """Ranks a user's candidates with a blend of models."""

    async def retrieve(
        self,
        release_id: str,
        query: Query,
        models: tuple[str, ...],
        count: int,
        eligible: Bool,
        timeout: float,
    ) -> list[Int32]:
        """Retrieves each model's best eligible items."""

    async def compare(
        self, release_id: str, comparison: Comparison, timeout: float
    ) -> dict[str, Similarities]:
        """Returns the similarities of an item to the items of a release, by model."""

    async def explain(
        self,
        release_id: str,
        query: Query,
        models: Sequence[str],
        count: int,
        timeout: float,
    ) -> Sequence[pb.ExplainItemsResponse.ItemEvidence]:
        """Returns the rated items and similar users that support each candidate."""


class AnyBackend(Protocol):
    """A backend of the gateway; see `Backend` for the methods.

    Attributes:
        name: The backend's name, `cf` or `inference`.
        target: The location of the backend: a gRPC target, or the name of this process.
    """

    name: str
    target: str

    @property
    def healthy(self) -> bool:
        """Whether the backend answers."""

    @property
    def is_idle(self) -> bool:
        """Whether the backend has CPU time to spare, because it answers no call of this gateway."""

    @property
    def releases(self) -> tuple[str, ...]:
        """The ids of the releases that the backend has loaded, newest first."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Why the backend refused to load releases, by release id."""

    @property
    def model_seconds(self) -> Mapping[str, float]:
        """The seconds that each model has taken so far; only their ratios are meaningful."""

    @property
    def last_error(self) -> LastError:
        """The backend's most recent error."""

    def replica_states(self) -> Sequence[tuple[str, bool]]:
        """Returns the address of each replica, and whether it is healthy."""

    def open_circuits(self) -> Sequence[str]:
        """Returns the addresses of the replicas whose circuit breakers are open."""

    def serves(self, release_id: str) -> bool:
        """Returns whether the backend can answer with a release without delay."""

    def failure(self, release_id: str) -> BackendFailure | None:
        """Returns why the backend cannot answer with a release now; None if it can."""

    def keep_loaded(self, release_id: str) -> None:
        """Keeps a release loaded."""

    async def call(
        self,
        release_id: str,
        timeout: float,
        call: Callable[[AnyReplica, float], Awaitable[_T]],
        preferred: AnyReplica | None = None,
    ) -> _T:
        """Calls a replica with the remaining seconds as the timeout.

        Raises:
            BackendError: No replica answered.
        """

    async def watch(self) -> None:
        """Keeps the backend's health up to date, until cancelled."""

    async def close(self) -> None:
        """Frees the resources of the backend."""
