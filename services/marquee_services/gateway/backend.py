"""A backend as the gateway sees it: all its replicas, and which of them to call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from marquee.v1 import scoring_service_pb2 as pb
from marquee_services.arrays import Bool, Float32, Int32
from marquee_services.gateway.addresses import Address, resolve
from marquee_services.gateway.failures import BackendError, Failure
from marquee_services.gateway.replica import Replica
from marquee_services.gateway.settings import GatewaySettings

_log = structlog.get_logger()
_T = TypeVar("_T")

# What another replica may do better.
_PASSED_ON = (Failure.UNAVAILABLE, Failure.RELEASE_MISSING)


class Backend:
    """Calls the replicas of one backend.

    A call goes to the replica that holds the release and has the fewest calls waiting; where that
    one turns out to be gone, to another.

    Attributes:
        name: `cf` or `inference`.
        target: The gRPC target of its replicas.
        replicas: The replicas by address.
        release_in_service: The release that the gateway answers with, which replicas keep.
    """

    def __init__(self, name: str, target: str, settings: GatewaySettings) -> None:
        self.name = name
        self.target = target
        self.replicas: dict[Address, Replica] = {}
        self.release_in_service = ""
        self._settings = settings
        self._resolve_error = "", ""

    @property
    def healthy(self) -> bool:
        """Whether any replica answered when last asked."""
        return any(replica.healthy for replica in self.replicas.values())

    @property
    def releases(self) -> tuple[str, ...]:
        """The releases that every healthy replica holds, newest first."""
        held = [replica.releases for replica in self._healthy()]
        return tuple(r for r in held[0] if all(r in others for others in held)) if held else ()

    @property
    def refused(self) -> Mapping[str, str]:
        """Why healthy replicas refused releases, by id."""
        return {name: why for replica in self._healthy() for name, why in replica.refused.items()}

    @property
    def last_error(self) -> tuple[str, str]:
        """The last error and when it was, RFC 3339; empty for none."""
        errors = [(r.last_error, r.last_error_at) for r in self.replicas.values()]
        return max((*errors, self._resolve_error), key=lambda error: error[1])

    def serves(self, release_id: str) -> bool:
        """Whether a replica is connected, healthy when last asked, and holds a release."""
        return any(replica.serves(release_id) for replica in self.replicas.values())

    async def score(
        self, release_id: str, query: pb.UserQuery, models: tuple[str, ...], timeout: float
    ) -> dict[str, Float32]:
        """As `Replica.score`."""
        return await self._call(
            release_id, timeout, lambda r, left: r.score(release_id, query, models, left)
        )

    async def retrieve(
        self,
        release_id: str,
        query: pb.UserQuery,
        models: tuple[str, ...],
        count: int,
        eligible: Bool,
        timeout: float,
    ) -> list[Int32]:
        """As `Replica.retrieve`."""
        return await self._call(
            release_id,
            timeout,
            lambda r, left: r.retrieve(release_id, query, models, count, eligible, left),
        )

    async def compare(self, release_id: str, item: int, timeout: float) -> dict[str, Float32]:
        """As `Replica.compare`."""
        return await self._call(
            release_id, timeout, lambda r, left: r.compare(release_id, item, left)
        )

    async def explain(
        self, release_id: str, query: pb.UserQuery, count: int, timeout: float
    ) -> Sequence[pb.ExplainItemsResponse.ItemEvidence]:
        """As `Replica.explain`."""
        return await self._call(
            release_id, timeout, lambda r, left: r.explain(release_id, query, count, left)
        )

    async def watch(self) -> None:
        """Looks for replicas and probes them again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        resolved_at = -self._settings.resolve_interval
        while True:
            if loop.time() - resolved_at >= self._settings.resolve_interval:
                resolved_at = loop.time()
                await self._resolve()
            await asyncio.gather(
                *(replica.probe(self.release_in_service) for replica in self.replicas.values())
            )
            await asyncio.sleep(self._settings.probe_interval)

    async def close(self) -> None:
        """Closes all channels."""
        for replica in self.replicas.values():
            await replica.close()

    async def _resolve(self) -> None:
        """Opens and closes channels as replicas come and go; on failure the known ones stay."""
        try:
            found = await resolve(self.target)
        except (OSError, ValueError) as error:
            self._resolve_error = f"{self.target}: {error}", datetime.now(UTC).isoformat()
            _log.warning("backend_not_found", backend=self.name, error=str(error))
            return
        for address in found - self.replicas.keys():
            self.replicas[address] = Replica(self.name, address, self._settings)
        for address in self.replicas.keys() - found:
            # While it answers it is one, whatever the look-up says.
            if not self.replicas[address].healthy and not self.replicas[address].calls:
                await self.replicas.pop(address).close()

    def _healthy(self) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica.healthy]

    async def _call(
        self,
        release_id: str,
        timeout: float,
        call: Callable[[Replica, float], Awaitable[_T]],
    ) -> _T:
        """Calls a replica with the seconds that are left."""
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout
        tried: set[Replica] = set()
        error = BackendError(self.name, Failure.UNAVAILABLE, "not healthy when last asked")
        while replicas := [replica for replica in self._healthy() if replica not in tried]:
            # In rotation among those that are equally idle.
            replica = min(
                replicas, key=lambda r: (release_id not in r.releases, r.calls, r.called_at)
            )
            tried.add(replica)
            replica.calls += 1
            replica.called_at = loop.time()
            try:
                return await call(replica, due - loop.time())
            except BackendError as failed:
                if failed.failure not in _PASSED_ON:
                    raise
                error = failed
            finally:
                replica.calls -= 1
        raise error
