"""A backend (the CF or the inference service): its replicas, and which of them to call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from marquee_services.gateway.backends.addresses import Address, resolve
from marquee_services.gateway.backends.failures import (
    BackendError,
    BackendFailure,
    Failure,
    LastError,
)
from marquee_services.gateway.backends.hedging import HedgedCalls
from marquee_services.gateway.backends.interface import AnyReplica
from marquee_services.gateway.backends.monitor import BackendMonitor
from marquee_services.gateway.backends.replica import Replica
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.identity.certificates import Certificates
from marquee_services.server.telemetry.metrics import Metrics

_log = structlog.get_logger()
_T = TypeVar("_T")

# After these failures, the call is retried on another replica.
_RETRIED_FAILURES = (Failure.UNAVAILABLE, Failure.RELEASE_MISSING)


class Backend:
    """Balances calls over the replicas of a backend.

    Each call goes to the healthy replica that holds the release and has the lowest cost, by latency
    and calls in flight (`latency.py`). If that replica is unavailable or lacks the release, the
    call is retried on another one. If it takes much longer than usual, the call is also sent to
    another one (`hedging.py`). A replica that repeatedly fails or is late gets no calls until it
    has recovered (`circuit.py`).

    Attributes:
        name: The backend's name, `cf` or `inference`.
        target: The gRPC target that resolves to its replicas.
        replicas: The replicas by address.
    """

    def __init__(
        self,
        name: str,
        target: str,
        settings: GatewaySettings,
        certificates: Certificates | None = None,
        monitor: BackendMonitor | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.replicas: dict[Address, Replica] = {}
        self._settings = settings
        self._certificates = certificates
        self._monitor = monitor or BackendMonitor(Metrics())
        self._calls = HedgedCalls(name, self._healthy_replicas, self._monitor)
        self._release_in_service = ""
        self._resolve_error = LastError()

    @property
    def healthy(self) -> bool:
        """Whether at least one replica answered its last probe."""
        return any(replica.healthy for replica in self.replicas.values())

    @property
    def is_idle(self) -> bool:
        """Whether no replica answers a call of this gateway."""
        return not any(replica.calls_in_flight for replica in self.replicas.values())

    @property
    def releases(self) -> tuple[str, ...]:
        """The ids of the releases that every healthy replica has loaded, newest first."""
        held = [replica.releases for replica in self._healthy_replicas()]
        return tuple(r for r in held[0] if all(r in others for others in held)) if held else ()

    @property
    def refused(self) -> Mapping[str, str]:
        """Why healthy replicas refused to load releases, by release id."""
        return {
            release_id: why
            for replica in self._healthy_replicas()
            for release_id, why in replica.refused.items()
        }

    @property
    def model_seconds(self) -> Mapping[str, float]:
        """The seconds that each model has taken, in the healthy replica with the largest total."""
        found = [replica.model_seconds for replica in self._healthy_replicas()]
        return max(found, key=lambda seconds: sum(seconds.values()), default={})

    @property
    def last_error(self) -> LastError:
        """The most recent error of a replica or of resolving the target."""
        errors = [replica.last_error for replica in self.replicas.values()]
        return max((*errors, self._resolve_error), key=lambda error: error.at)

    def replica_states(self) -> list[tuple[str, bool]]:
        """Returns the address of each replica, and whether it is healthy."""
        return [(replica.address, replica.healthy) for replica in self.replicas.values()]

    def open_circuits(self) -> Sequence[str]:
        """Returns the addresses of the replicas whose circuit breakers are open."""
        return [r.address for r in self.replicas.values() if r.circuit.is_open]

    def serves(self, release_id: str) -> bool:
        """Returns whether a connected and healthy replica has loaded a release."""
        return any(replica.serves(release_id) for replica in self.replicas.values())

    def failure(self, release_id: str) -> BackendFailure | None:
        """Returns why the backend cannot answer with a release now; None if it can."""
        is_healthy = False
        for replica in self.replicas.values():
            if replica.healthy:
                if release_id in replica.releases:
                    return None
                is_healthy = True
        if not is_healthy:
            return BackendFailure(self.name, Failure.UNAVAILABLE)
        return BackendFailure(self.name, Failure.RELEASE_MISSING)

    def keep_loaded(self, release_id: str) -> None:
        """Makes every future probe ask the replicas to keep a release loaded.

        Args:
            release_id: The release that the gateway has put in service.
        """
        self._release_in_service = release_id

    async def call(
        self,
        release_id: str,
        timeout: float,
        call: Callable[[Replica, float], Awaitable[_T]],
        preferred: AnyReplica | None = None,
    ) -> _T:
        """Calls a replica; if it is unavailable or lacks the release, calls another one.

        Args:
            release_id: The release of the request; replicas that have loaded it are preferred.
            timeout: Seconds for the call, including further attempts.
            call: Calls the given replica with the given number of seconds as the timeout.
            preferred: The replica to call if it is healthy, because one that has answered part of
                the same request may have cached intermediate results. None for no preference.

        Raises:
            BackendError: No replica is healthy, all replicas failed, or one failed in a way for
                which a retry would not help.
        """
        due = asyncio.get_running_loop().time() + timeout
        tried: set[Replica] = set()
        error: BackendError | None = None
        only = self._calls.begin(release_id, call, due)
        while (replica := only or self._calls.best(tried, release_id, preferred)) is not None:
            tried.add(replica)
            try:
                if only is not None:
                    return await self._calls.attempt(only, call, due)
                return await self._calls.call(replica, tried, release_id, call, due)
            except BackendError as failed:
                if failed.reason.failure not in _RETRIED_FAILURES:
                    raise
                error, only = failed, None
        try:
            raise error or BackendError(self.name, Failure.UNAVAILABLE, "no replica is healthy")
        finally:
            del error  # Its traceback holds this frame: they would keep each other in memory.

    async def watch(self) -> None:
        """Resolves the target and probes the replicas periodically, until cancelled."""
        loop = asyncio.get_running_loop()
        resolved_at = -self._settings.resolve_interval
        while True:
            if loop.time() - resolved_at >= self._settings.resolve_interval:
                resolved_at = loop.time()
                await self._update_replicas()
            await asyncio.gather(
                *(replica.probe(self._release_in_service) for replica in self.replicas.values())
            )
            await asyncio.sleep(self._settings.probe_interval)

    async def close(self) -> None:
        """Closes the channels to all replicas."""
        self._calls.close()
        for replica in self.replicas.values():
            await replica.close()

    async def _update_replicas(self) -> None:
        """Resolves the target, and adds and removes replicas; keeps all if resolving fails."""
        try:
            found = await resolve(self.target)
        except (OSError, ValueError) as error:
            self._resolve_error = LastError.now(f"{self.target}: {error}")
            _log.warning("backend_resolution_failed", backend=self.name, error=str(error))
            return
        for address in found - self.replicas.keys():
            self.replicas[address] = Replica(
                self.name, address, self._settings, self._certificates, self._monitor
            )
        for address in self.replicas.keys() - found:
            # A replica that still answers is kept, even if its address is no longer resolved.
            if not self.replicas[address].healthy and not self.replicas[address].calls_in_flight:
                await self.replicas.pop(address).close()

    def _healthy_replicas(self) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica.healthy]
