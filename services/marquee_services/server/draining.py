"""Empties a server that shuts down: no call is left for gRPC to end with a bare CANCELLED.

gRPC hands calls over one after another. When it stops, it ends the calls that it has not handed
over with CANCELLED and without details, which says nothing about whether to try again. Under
overload hundreds of calls wait for that. A draining server therefore stops only once none is left.

Clients that watch the server's health call other servers as soon as it drains. Others go on calling
until they are told to connect elsewhere, which happens when gRPC stops. If they call faster than
gRPC hands over, their calls are refused, and finally their connections closed: a lost connection is
UNAVAILABLE, which gRPC clients retry.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from marquee_services.errors import Draining
from marquee_services.server.admission.calls import CallsInProgress
from marquee_services.server.admission.refusals import Refusals
from marquee_services.server.connections import sockets

# Time for clients to learn that the server drains, and for gRPC to hand over the calls in between.
_NOTICE_S = 0.05
# Calls that still arrive after the first time are refused, and after the second given up.
# Calls that are tried again have to find the connection closed before they run out of attempts.
_REFUSE_AFTER_S, _MAX_HANDOVER_S = 0.1, 0.4
# If no call arrives for this many turns, there is none left.
_POLL_S, _QUIET_TURNS = 0.002, 3
# The time in which statuses that have been sent leave the process.
_FLUSH_S = 0.1


class Drain:
    """Refuses calls while a server drains.

    Attributes:
        is_refusing: Whether every call that arrives is refused.
    """

    def __init__(self, calls: CallsInProgress, refusals: Refusals) -> None:
        """Refuses nothing yet.

        Args:
            calls: The calls in progress.
            refusals: Refuses calls.
        """
        self.is_refusing = False
        self._calls = calls
        self._refusals = refusals
        self._peers: set[str] = set()

    def handler(self, name: str) -> grpc.RpcMethodHandler[Any, Any]:
        """Returns a handler that refuses a call without reading its request.

        Args:
            name: The name of the method.
        """
        error = Draining()

        async def refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            start = time.perf_counter()
            self._peers.add(context.peer())
            await self._refusals.send(name, error, start, context)

        return grpc.stream_unary_rpc_method_handler(refuse, None, None)

    async def hand_over(self, grace: float, is_watched: bool) -> None:
        """Returns once gRPC has handed over all calls, or calls that it has not can be retried.

        Args:
            grace: The most seconds to wait for calls in progress before connections are closed.
            is_watched: Whether clients watch the server's health, and so need time to leave.
        """
        start = now = time.monotonic()
        noticed_at = start + _NOTICE_S * is_watched
        arrived, quiet_since, turn_s = self._calls.arrived, start, 0.0
        while now < start + _MAX_HANDOVER_S:
            await asyncio.sleep(_POLL_S)
            await self._calls.wait_for_handover()
            before, now = now, time.monotonic()
            # On a busy machine, gRPC's threads have to wait as long as this one.
            turn_s = max(turn_s, now - before)
            if arrived != self._calls.arrived:
                arrived, quiet_since = self._calls.arrived, now
            elif now > max(noticed_at, quiet_since + _QUIET_TURNS * turn_s):
                break
            self.is_refusing = self.is_refusing or now >= start + _REFUSE_AFTER_S
        if not self.is_refusing:
            return
        while self._calls.open and time.monotonic() < start + grace:
            await asyncio.sleep(_POLL_S)
        self.end_open()
        await asyncio.sleep(_FLUSH_S)
        sockets.end(dict.fromkeys(self._peers, False))

    def end_open(self) -> None:
        """Ends all calls in progress."""
        for call in list(self._calls.open):
            self._calls.end(call, Draining())
