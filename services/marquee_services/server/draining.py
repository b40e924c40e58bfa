"""Empties a server that shuts down: no call is left for gRPC to end with a bare CANCELLED.

gRPC hands calls over one after another. When it stops, it ends the calls that it has not handed
over with CANCELLED and without details, which says nothing about whether to try again. Under
overload hundreds of calls wait for that. A draining server therefore stops only once none is left.

Clients that watch the server's health call other servers as soon as it drains. Others go on calling
until they are told to connect elsewhere, which happens when gRPC stops. If they call faster than
gRPC hands over, the server stops listening and refuses their calls, and closes each of their
connections as soon as no call is in progress on it: a lost connection is UNAVAILABLE, which gRPC
clients retry, and they do not return to a server that does not listen.
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
# The time in which statuses that have been sent leave the process, and in which those of refused
# calls leave it while others are in progress.
_FLUSH_S, _IDLE_S = 0.1, 0.02
_UNIX = "unix"


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
        # The peers whose calls were refused, and when that was first.
        self._peers: dict[str, float] = {}
        self._ended_at = 0.0

    def handler(self, name: str) -> grpc.RpcMethodHandler[Any, Any]:
        """Returns a handler that refuses a call without reading its request.

        Args:
            name: The name of the method.
        """
        error = Draining()

        async def refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            start = time.perf_counter()
            self._peers.setdefault(context.peer(), time.monotonic())
            await self._refusals.send(name, error, start, context)

        return grpc.stream_unary_rpc_method_handler(refuse, None, None)

    async def hand_over(self, grace: float, is_watched: bool, port: int) -> None:
        """Returns once gRPC has handed over all calls, or calls that it has not can be retried.

        Args:
            grace: The most seconds to wait for calls in progress before connections are closed.
            is_watched: Whether clients watch the server's health, and so need time to leave.
            port: The port that the server listens on; 0 for a Unix socket.
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
            if self.is_refusing:
                self._end_idle(now)
            elif now >= start + _REFUSE_AFTER_S:
                self.is_refusing = True
                sockets.stop_listening(port)
        if not self.is_refusing:
            return
        while self._calls.open and time.monotonic() < start + grace:
            await asyncio.sleep(_POLL_S)
            self._end_idle(time.monotonic())
        self.end_open()
        await asyncio.sleep(_FLUSH_S)
        # Calls that gRPC has not handed over may be on any connection.
        sockets.end_accepted(port)

    def _end_idle(self, now: float) -> None:
        """Ends the connections on which calls were refused a while ago and none is in progress.

        Args:
            now: The current time, by `time.monotonic`.
        """
        if now < self._ended_at + _IDLE_S:
            return  # Finding the sockets reads the list of all open files.
        self._ended_at = now
        busy = {call.peer for call in self._calls.open}
        idle = [p for p, at in self._peers.items() if now > at + _IDLE_S and p not in busy]
        for peer in idle:
            del self._peers[peer]
        if any(peer.startswith(_UNIX) for peer in idle):
            sockets.end_accepted(0)
        sockets.end({peer: False for peer in idle if not peer.startswith(_UNIX)})

    def end_open(self) -> None:
        """Ends all calls in progress."""
        for call in list(self._calls.open):
            self._calls.end(call, Draining())
