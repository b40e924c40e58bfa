"""A load generator for gRPC that uses less CPU than the servers it measures.

It has its own implementation of HTTP/2 (see `bench.connection`) and sends preserialised messages.
The load is a closed loop with a fixed number of calls in flight: when a call ends, the next one
starts immediately.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import http2
from bench.connection import Call, Connection

_OK = "0"


@dataclass(frozen=True)
class LoadPlan:
    """A closed loop of calls.

    Attributes:
        address: The server as HOST:PORT, or several servers separated by commas; connections are
            opened to them in turn.
        path: The method as /package.Service/Method.
        in_flight: Calls in flight.
        connections: Maximum number of connections.
        warm_s: Duration of the warm-up in seconds, whose successful calls are not counted.
        seconds: Duration of the counted part in seconds; 0 to make `calls` calls instead.
        calls: Number of calls to make and count if `seconds` is 0.
        timeout_s: Deadline of each call in seconds.
        grace_s: Seconds after the deadline until unfinished calls are abandoned.
        window: Receive window of each stream and of each connection, in bytes.
        streaming: Whether a response may have any number of messages; otherwise exactly one.
        pause_s: Seconds to wait after each read, so that several answers are read, and the next
            calls sent, with one system call. This increases latency, so use it only to measure
            throughput.
    """

    address: str
    path: str
    in_flight: int
    connections: int = 4
    warm_s: float = 0.3
    seconds: float = 1.0
    calls: int = 0
    timeout_s: int = 20
    grace_s: float = 5.0
    window: int = 4 * 1024 * 1024
    streaming: bool = False
    pause_s: float = 0.0


@dataclass
class Outcome:
    """The result of a load plan.

    Attributes:
        elapsed_s: Duration of the counted part of the load, in seconds.
        client_cpu_s: CPU time of this process in that time, in seconds.
        latencies_s: Latencies in seconds of the calls that succeeded in that time, in the order
            in which they ended.
        bodies: The bodies of their responses: messages with their gRPC prefixes.
        errors: Calls that failed at any time, counted by gRPC status number or by a description
            of the failure.
    """

    elapsed_s: float = 0.0
    client_cpu_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class ClosedLoop:
    """Keeps a fixed number of calls in flight, and records how they end."""

    def __init__(
        self, plan: LoadPlan, messages: Sequence[bytes], on_window: Callable[[bool], None]
    ) -> None:
        """Prepares a load.

        Args:
            plan: The load.
            messages: Serialised requests, sent in turn and repeatedly.
            on_window: Called with True when counting starts, and with False when it ends.
        """
        self._plan = plan
        self._messages = [http2.grpc_message(message) for message in messages]
        self._on_window = on_window
        self._outcome = Outcome()
        self._begun = 0
        self._counting = False
        self._stopping = False
        self._idle = asyncio.Event()
        self._connections: list[Connection] = []
        self._starts = (0.0, 0.0)

    async def run(self) -> Outcome:
        """Runs the load and waits for the calls in flight at its end.

        Raises:
            OSError: The server cannot be reached.
        """
        loop, plan = asyncio.get_running_loop(), self._plan
        addresses = plan.address.split(",")
        for number in range(min(plan.connections, plan.in_flight)):
            host, _, port = addresses[number % len(addresses)].rpartition(":")
            _, connection = await loop.create_connection(self._connect, host, int(port))
            self._connections.append(connection)
        if not plan.seconds:
            self._count(True)
        for place in range(plan.in_flight):
            self._begin(self._connections[place % len(self._connections)])
        for connection in self._connections:
            connection.flush()
        if plan.seconds:
            await asyncio.sleep(plan.warm_s)
            self._count(True)
            await asyncio.sleep(plan.seconds)
            self._count(False)
            self._stopping = True
        turns = 1 if plan.seconds else math.ceil(plan.calls / plan.in_flight)
        try:
            await asyncio.wait_for(self._idle.wait(), turns * plan.timeout_s + plan.grace_s)
        except TimeoutError:
            for connection in self._connections:
                connection.lost = connection.lost or "did not end"
        if self._counting:
            self._count(False)
        self._stopping = True
        for connection in self._connections:
            await connection.close()
        return _checked(self._outcome, plan.streaming)

    def _connect(self) -> Connection:
        plan = self._plan
        return Connection(
            plan.address, plan.path, plan.timeout_s, plan.window, self._ended, plan.pause_s
        )

    def _begin(self, connection: Connection) -> None:
        plan = self._plan
        if self._stopping or connection.lost or (not plan.seconds and self._begun >= plan.calls):
            return
        message = self._messages[self._begun % len(self._messages)]
        self._begun += 1
        connection.start(message, time.perf_counter())

    def _ended(self, connection: Connection, call: Call, status: str) -> None:
        if status != _OK:
            # Failures always count, even during the warm-up and after the counted part.
            self._outcome.errors[status] += 1
        elif self._counting:
            self._outcome.latencies_s.append(time.perf_counter() - call.start)
            self._outcome.bodies.append(b"".join(call.chunks))
        self._begin(connection)
        if not any(c.calls for c in self._connections):
            self._idle.set()

    def _count(self, begin: bool) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        if begin:
            self._starts = now, cpu
        else:
            self._outcome.elapsed_s = now - self._starts[0]
            self._outcome.client_cpu_s = cpu - self._starts[1]
        self._counting = begin
        self._on_window(begin)


def _checked(outcome: Outcome, streaming: bool) -> Outcome:
    """Counts calls with status OK but an incomplete response as errors."""
    checked = Outcome(outcome.elapsed_s, outcome.client_cpu_s, errors=outcome.errors)
    for latency, body in zip(outcome.latencies_s, outcome.bodies, strict=True):
        try:
            count = sum(1 for _ in http2.grpc_messages(body))
        except ValueError as error:
            checked.errors[str(error)] += 1
            continue
        if not streaming and count != 1:
            checked.errors[f"{count} messages instead of one"] += 1
            continue
        checked.latencies_s.append(latency)
        checked.bodies.append(body)
    return checked
