"""Ends connections whose calls come to nothing: rapid resets and requests that never arrive.

Each call costs the server time before it can know that nobody wants its answer. A client that
begins calls only to reset them ("rapid reset", CVE-2023-44487), or to leave their requests out, can
so keep a server busy at little cost. HTTP/2 servers count such calls by connection; this one does,
too: what comes to nothing counts for, and what is answered counts against. Clients whose callers
give up now and then, or are too slow now and then, stay near zero.

The first connection of an address that reaches the limit is closed. Those that follow it are cut
off: they stay open, and the kernel drops what arrives on them, so the client is neither heard nor
told to connect again. gRPC closes them when they answer no ping.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any, cast

import grpc
import structlog

from marquee_services.server import sockets
from marquee_services.server.metrics import Metrics

_log = structlog.get_logger()

# What a call counts that was reset, that was reset when its deadline was due (its client did not
# mean to), and whose request did not arrive; an answered one takes off as much as a reset one adds.
_RESET, _TOO_LATE, _NO_REQUEST = 4, 1, 64
_DEADLINE_DUE_S = 0.02
_LIMIT = 128 * _RESET
# Connections of an address that had one ended so recently.
_LIMIT_OF_OFFENDERS = 16 * _RESET
_OFFENDER_S = 300.0
# Counts that are remembered, of connections and addresses; the oldest are forgotten.
_MAX_COUNTED = 8_192
# Between two times that connections are ended, and the most of them that a log entry names.
_PAUSE_S = 0.05
_MAX_LOGGED = 8

Context = grpc.aio.ServicerContext[Any, Any]


class ConnectionGuard:
    """Counts what becomes of the calls of each connection."""

    def __init__(self, metrics: Metrics, is_active: bool = True) -> None:
        """Counts nothing yet.

        Args:
            metrics: Receives the number of connections ended.
            is_active: Whether connections are ended.
        """
        self._is_active = is_active
        self._ended = metrics.connections_ended
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._offenders: OrderedDict[str, float] = OrderedDict()
        # Connections that have been ended: calls that had arrived on them are still handed over.
        self._gone: OrderedDict[str, None] = OrderedDict()
        # Connections to be ended, and whether silently.
        self._ending: dict[str, bool] = {}
        self._task: asyncio.Task[None] | None = None

    def reset(self, context: Context) -> None:
        """Counts a call that its client has reset."""
        # None without a deadline, although the type stubs exclude it.
        left = cast("float | None", context.time_remaining())
        is_due = left is not None and left < _DEADLINE_DUE_S
        self._add(context.peer(), _TOO_LATE if is_due else _RESET)

    def without_request(self, context: Context) -> None:
        """Counts a call whose request has not arrived in time."""
        self._add(context.peer(), _NO_REQUEST)

    def answered(self, context: Context) -> None:
        """Counts a call that was answered, be it with an error."""
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
        if count >= (_LIMIT_OF_OFFENDERS if offended else _LIMIT):
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
        """Ends connections until none is left to end; those that come meanwhile, together."""
        while self._ending:
            ending, self._ending = self._ending, {}
            self._ended.inc(len(ending))
            # Looking for sockets reads a list of all open files.
            await asyncio.to_thread(sockets.end, ending)
            _log.warning(
                "connections_ended",
                count=len(ending),
                peers=list(ending)[:_MAX_LOGGED],
                why="their calls were reset or had no request",
            )
            await asyncio.sleep(_PAUSE_S)
