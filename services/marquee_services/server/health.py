"""The health service: a status for each of the server's services, and one for the process."""

from __future__ import annotations

from collections.abc import Sequence

from grpc_health.v1 import health, health_pb2

LIVE = "live"
"""The name that is SERVING for as long as the server's event loop turns, for liveness probes."""

_Status = health_pb2.HealthCheckResponse.ServingStatus


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """Answers NOT_SERVING for the services until `set_serving` is called, and again at the end.

    Attributes:
        is_serving: Whether the services are SERVING.
    """

    def __init__(self, services: Sequence[str]) -> None:
        """Takes the full names of the services; the overall name "" has the same status."""
        super().__init__()
        self._names = (*services, "")
        self._is_draining = False
        self.is_serving = False

    async def start(self) -> None:
        """Sets the statuses of a server that has no release yet."""
        await self.set(LIVE, _Status.SERVING)
        await self.set_serving(False)

    async def set_serving(self, serving: bool) -> None:
        """Sets the status of the services; has no effect after `drain`."""
        if not self._is_draining:
            await self._set_all(_Status.SERVING if serving else _Status.NOT_SERVING)

    async def drain(self) -> None:
        """Sets the services to NOT_SERVING for good. The process stays live while it drains."""
        self._is_draining = True
        await self._set_all(_Status.NOT_SERVING)

    async def _set_all(self, status: int) -> None:
        for name in self._names:
            await self.set(name, status)
        self.is_serving = status == _Status.SERVING
