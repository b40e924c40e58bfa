"""Closes connections with too many abandoned calls: rapid resets and requests that never arrive.

Each call costs the server time before it can tell whether the call has been abandoned. A client
that starts calls only to reset them ("rapid reset", CVE-2023-44487), or that never sends their
requests, can therefore keep a server busy at little cost. Like other HTTP/2 servers, this one
keeps a score for each connection: abandoned calls raise it, and answered calls lower it. Clients
that cancel or miss a deadline now and then stay near zero.

The first connection of an address that reaches the limit is closed. The following ones are muted:
they stay open, but the kernel drops all packets that arrive on them, so that the client has no
reason to reconnect. gRPC closes them when their keepalive pings are not answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any, cast

import grpc
import structlog

from marquee_services.server.connections import sockets
from marquee_services.server.telemetry.metrics import Metrics

_log = structlog.get_logger()

# The scores of a call that was reset, that was reset because its deadline passed (which is no
# abuse), and whose request did not arrive. An answered call subtracts the score of a reset.
_RESET, _DEADLINE, _MISSING_REQUEST = 4, 1, 64
_DEADLINE_DUE_S = 0.02
_LIMIT = 128 * _RESET
# The limit for addresses of which a connection was ended within this many seconds.
_OFFENDER_LIMIT = 16 * _RESET
_OFFENDER_S = 300.0
# The most connections and addresses that are remembered; the oldest are dropped.
_MAX_COUNTED = 8_192
# The pause between two rounds of ending connections, and the most peers in a log entry.
_PAUSE_S = 0.05
_MAX_LOGGED = 8

Context = grpc.aio.ServicerContext[Any, Any]


class ConnectionGuard:
    """Keeps the score of each connection, and ends those that reach the limit."""

    def __init__(self, metrics: Metrics, is_active: bool = True) -> None:
        """Starts without scores.

        Args:
            metrics: Receives the number of connections ended.
            is_active: Whether connections are ended.
        """
        self._is_active = is_active
        self._ended = metrics.connections_ended
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._offenders: OrderedDict[str, float] = OrderedDict()
        # Ended connections: gRPC still hands over calls that had arrived on them.
        self._gone: OrderedDict[str, None] = OrderedDict()
        # Connections to be ended, and whether to mute them instead of closing them.
        self._ending: dict[str, bool] = {}
        self._task: asyncio.Task[None] | None = None

    def record_reset(self, context: Context) -> None:
        """Records a call that its client has reset."""
        # None without a deadline, although the type stubs do not say so.
        left = cast("float | None", context.time_remaining())
        is_due = left is not None and left < _DEADLINE_DUE_S
        self._add(context.peer(), _DEADLINE if is_due else _RESET)

    def record_missing_request(self, context: Context) -> None:
        """Records a call whose request has not arrived in time."""
        self._add(context.peer(), _MISSING_REQUEST)

    def record_answer(self, context: Context) -> None:
        """Records a call that was answered, successfully or with an error."""
        if self._counts:
            peer = context.peer()
            count = self._counts.get(peer)
            if count is not None:
                if count <= _RESET:
                    del self._counts[peer]
                else:
                    self._counts[peer] = count - _RESET

    def _add(self, peer: str, cost: int) -> None:
        if peer in self._gone or not self._is_active:
            return
        count = self._counts[peer] = self._counts.get(peer, 0) + cost
        self._counts.move_to_end(peer)
        host = peer.rpartition(":")[0]
        now = time.monotonic()
        offended = now - self._offenders.get(host, -_OFFENDER_S) < _OFFENDER_S
        if count >= (_OFFENDER_LIMIT if offended else _LIMIT):
            del self._counts[peer]
            self._gone[peer] = None
            self._offenders[host] = now
            self._offenders.move_to_end(host)
            self._ending[peer] = offended
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._end())
        for counted in (self._counts, self._offenders, self._gone):
            if len(counted) > _MAX_COUNTED:
                counted.popitem(last=False)

    async def _end(self) -> None:
        """Ends connections until none is left; those added in the meantime are ended together."""
        while self._ending:
            ending, self._ending = self._ending, {}
            self._ended.inc(len(ending))
            # Finding the sockets reads the list of all open files.
            await asyncio.to_thread(sockets.end, ending)
            _log.warning(
                "connections_ended",
                count=len(ending),
                peers=list(ending)[:_MAX_LOGGED],
                why="their calls were reset or had no request",
            )
            await asyncio.sleep(_PAUSE_S)
