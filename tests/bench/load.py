"""A load generator for gRPC that costs less than the server it measures.

It speaks HTTP/2 itself (see `bench.connection`), and messages are prepared. A closed loop keeps a
number of calls in flight; each that ends is followed by the next at once.
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
        address: host:port, or several with commas; connections go to them in turn.
        path: /package.Service/Method.
        in_flight: Calls in flight.
        connections: At most so many connections.
        warm_s: Seconds of load before anything is counted.
        seconds: Seconds in which ended calls are counted; 0 to count `calls`.
        calls: How many calls are made in all, when `seconds` is 0; all are counted.
        timeout_s: Each call's deadline in seconds.
        grace_s: Seconds beyond it until calls that have not ended are given up.
        window: Receive window of each stream and of each connection, in bytes.
        streaming: Whether a call's response is any number of messages, or else exactly one.
        pause_s: Seconds to let answers gather after each read, so that they are read, and the next
            calls sent, in few system calls. It lengthens latencies: for throughput alone.
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
    """What a load came to.

    Attributes:
        elapsed_s: Seconds that were counted.
        client_cpu_s: CPU seconds of this process in them.
        latencies_s: Of calls that ended well, in order of their ends.
        bodies: Their bodies: messages with their lengths before them.
        errors: By status, how many calls ended otherwise; gRPC's numbers, or words.
    """

    elapsed_s: float = 0.0
    client_cpu_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class ClosedLoop:
    """Keeps a number of calls in flight, and counts how they end."""

    def __init__(
        self, plan: LoadPlan, messages: Sequence[bytes], on_window: Callable[[bool], None]
    ) -> None:
        """Takes the load.

        Args:
            plan: The load.
            messages: Prepared requests, without their lengths; taken in turn, again and again.
            on_window: Called with True as counting begins, and with False as it ends.
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
        """Runs the load to its end; calls that are still in flight then are waited for.

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
                connection.lost = connection.lost or "never ended"
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
            # Before and after the counting as well: a failure is never left out.
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
    """Takes calls that ended well without a whole answer for errors."""
    checked = Outcome(outcome.elapsed_s, outcome.client_cpu_s, errors=outcome.errors)
    for latency, body in zip(outcome.latencies_s, outcome.bodies, strict=True):
        try:
            count = sum(1 for _ in http2.grpc_messages(body))
        except ValueError as error:
            checked.errors[str(error)] += 1
            continue
        if not streaming and count != 1:
            checked.errors[f"{count} messages, not one"] += 1
            continue
        checked.latencies_s.append(latency)
        checked.bodies.append(body)
    return checked
