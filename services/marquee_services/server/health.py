"""The health service: the status of each of the server's services, and of the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health, health_pb2

LIVE = "live"
"""The service name for liveness probes: it is SERVING while the event loop runs."""

_Status = health_pb2.HealthCheckResponse.ServingStatus


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """Reports the services as NOT_SERVING until `set_serving` is called, and after `drain`.

    Attributes:
        is_serving: Whether the services are SERVING.
        watchers: The number of clients that watch a status.
    """

    def __init__(self, services: Sequence[str]) -> None:
        """Creates the health service.

        Args:
            services: The full names of the services; the overall name "" has the same status.
        """
        super().__init__()
        self._names = (*services, "")
        self._is_draining = False
        self.watchers = 0
        self.is_serving = False

    async def Watch(  # noqa: N802 - the name of the RPC
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> None:
        """Sends a status and its changes until the client ends the call."""
        self.watchers += 1
        try:
            await super().Watch(request, context)
        finally:
            self.watchers -= 1

    async def start(self) -> None:
        """Sets the initial statuses, of a server without a release."""
        await self.set(LIVE, _Status.SERVING)
        await self.set_serving(False)

    async def set_serving(self, serving: bool) -> None:
        """Sets the status of the services; has no effect after `drain`."""
        if not self._is_draining:
            await self._set_all(_Status.SERVING if serving else _Status.NOT_SERVING)

    async def drain(self) -> None:
        """Sets the services to NOT_SERVING permanently. The process stays live while it drains."""
        self._is_draining = True
        await self._set_all(_Status.NOT_SERVING)

    async def _set_all(self, status: int) -> None:
        for name in self._names:
            await self.set(name, status)
        self.is_serving = status == _Status.SERVING
