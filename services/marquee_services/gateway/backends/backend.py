"""A backend as the gateway sees it: all its replicas, and which of them to call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog

from marquee_services.gateway.backends.addresses import Address, resolve
from marquee_services.gateway.backends.failures import BackendError, Failure, LastError
from marquee_services.gateway.backends.replica import Replica
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
        self._resolve_error = LastError()

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
    def last_error(self) -> LastError:
        """The last error, of a replica or of a look-up."""
        errors = [replica.last_error for replica in self.replicas.values()]
        return max((*errors, self._resolve_error), key=lambda error: error.at)

    def serves(self, release_id: str) -> bool:
        """Whether a replica is connected, healthy when last asked, and holds a release."""
        return any(replica.serves(release_id) for replica in self.replicas.values())

    async def call(
        self,
        release_id: str,
        timeout: float,
        call: Callable[[Replica, float], Awaitable[_T]],
    ) -> _T:
        """Calls a replica.

        Args:
            release_id: The release; replicas that hold it are asked first.
            timeout: Seconds.
            call: Makes the call, with the seconds that are left.

        Raises:
            BackendError: There was no answer.
        """
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
            self._resolve_error = LastError.now(f"{self.target}: {error}")
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
