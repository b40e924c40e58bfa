"""An open loop of calls, which start at a fixed rate regardless of how long answers take.

A closed loop waits for answers, and so slows down together with the server that it measures. An
open loop keeps offering more load than the server can handle, as in an overload. Latency is
measured from the due time of a call, so it includes delays when the generator falls behind.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import http2
from bench.connection import Call, Connection

_OK = "0"
_TICK_S = 0.001


@dataclass(frozen=True)
class OpenPlan:
    """Calls at a fixed rate.

    Attributes:
        address: The server as HOST:PORT.
        path: The method as /package.Service/Method.
        calls_per_s: Calls started per second.
        seconds: Duration of the load in seconds.
        skip_s: Duration of the warm-up at its beginning, whose calls are not counted.
        connections: Number of connections, used in turn.
        timeout_s: Deadline of each call in seconds; later answers count as errors.
        window: Receive window of each stream and of each connection, in bytes.
    """

    address: str
    path: str
    calls_per_s: float
    seconds: float
    skip_s: float = 0.0
    connections: int = 8
    timeout_s: int = 1
    window: int = 4 * 1024 * 1024


@dataclass
class OpenOutcome:
    """The result of an open loop.

    Attributes:
        begun: Number of calls.
        latencies_s: Latencies in seconds of the answers that arrived in time.
        bodies: The bodies of these answers: messages with their gRPC prefixes.
        errors: The other calls, counted by gRPC status number or by a description of the failure.
        error_latencies_s: The latencies of these calls in seconds, by the same key.
        behind_s: Longest delay between the due time and the start of a call, in seconds.
    """

    begun: int = 0
    latencies_s: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    error_latencies_s: dict[str, list[float]] = field(default_factory=dict)
    behind_s: float = 0.0


class OpenLoop:
    """Starts calls at a fixed rate, and records how they end."""

    def __init__(self, plan: OpenPlan, messages: Sequence[bytes]) -> None:
        """Prepares a load.

        Args:
            plan: The load.
            messages: Serialised requests, sent in turn and repeatedly.
        """
        self._plan = plan
        self._messages = [http2.grpc_message(message) for message in messages]
        self._outcome = OpenOutcome()
        self._counted_from = 0.0

    async def run(self) -> OpenOutcome:
        """Runs the load and waits for the calls in flight at its end.

        Raises:
            OSError: The server cannot be reached.
        """
        loop, plan = asyncio.get_running_loop(), self._plan
        host, _, port = plan.address.rpartition(":")
        connections: list[Connection] = []
        for _ in range(plan.connections):
            _, connection = await loop.create_connection(self._connect, host, int(port))
            connections.append(connection)
        start, begun = time.perf_counter(), 0
        self._counted_from = start + plan.skip_s
        while (elapsed := time.perf_counter() - start) < plan.seconds:
            while (due := begun / plan.calls_per_s) <= elapsed:
                connection = connections[begun % len(connections)]
                if connection.lost:
                    self._count_lost(connection.lost)
                else:
                    connection.start(self._messages[begun % len(self._messages)], start + due)
                if due >= plan.skip_s:
                    self._outcome.begun += 1
                begun += 1
            self._outcome.behind_s = max(
                self._outcome.behind_s, time.perf_counter() - start - begun / plan.calls_per_s
            )
            for connection in connections:
                connection.flush()
            await asyncio.sleep(_TICK_S)
        due_by = time.perf_counter() + plan.timeout_s + 1.0
        while any(c.calls for c in connections) and time.perf_counter() < due_by:
            await asyncio.sleep(_TICK_S)
        for connection in connections:
            connection.lost = connection.lost or "no answer"
            await connection.close()
        return self._outcome

    def _connect(self) -> Connection:
        plan = self._plan
        return Connection(plan.address, plan.path, plan.timeout_s, plan.window, self._ended)

    def _count_lost(self, why: str) -> None:
        self._outcome.errors[why] += 1

    def _ended(self, _connection: Connection, call: Call, status: str) -> None:
        if call.start < self._counted_from:
            return
        took = time.perf_counter() - call.start
        if status == _OK and took > self._plan.timeout_s:
            status = "too late"
        if status == _OK:
            self._outcome.latencies_s.append(took)
            self._outcome.bodies.append(b"".join(call.chunks))
        else:
            self._outcome.errors[status] += 1
            self._outcome.error_latencies_s.setdefault(status, []).append(took)
