"""A load generator for gRPC that costs less than the server it measures.

It speaks HTTP/2 itself: the request's header block is prepared once, messages are prepared, and
trailers are decoded once for each distinct block. A closed loop keeps a number of calls in flight;
each that ends is followed by the next at once.
"""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from bench import http2

_OK = "0"
_STREAM_STEP = 2  # a client's streams have odd numbers
_GRACE_S = 5.0  # beyond a call's deadline, until it is given up


@dataclass(frozen=True)
class LoadPlan:
    """A closed loop of calls.

    Attributes:
        address: host:port.
        path: /package.Service/Method.
        in_flight: Calls in flight.
        connections: At most so many connections.
        warm_s: Seconds of load before anything is counted.
        seconds: Seconds in which ended calls are counted; 0 to count `calls`.
        calls: How many calls are made in all, when `seconds` is 0; all are counted.
        timeout_s: Each call's deadline in seconds.
        window: Receive window of each stream and of each connection, in bytes.
        streaming: Whether a call's response is any number of messages, or else exactly one.
    """

    address: str
    path: str
    in_flight: int
    connections: int = 4
    warm_s: float = 0.3
    seconds: float = 1.0
    calls: int = 0
    timeout_s: int = 20
    window: int = 4 * 1024 * 1024
    streaming: bool = False


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


class _Call:
    """A call in flight."""

    __slots__ = ("block", "chunks", "ended", "send_window", "start", "unacknowledged", "unsent")

    def __init__(self, start: float, send_window: int) -> None:
        self.start = start
        self.chunks: list[bytes] = []
        self.block = b""
        self.ended = False
        self.unsent = b""
        self.send_window = send_window
        self.unacknowledged = 0


class Connection(asyncio.Protocol):
    """One HTTP/2 connection that makes calls of one method."""

    def __init__(self, plan: LoadPlan, on_end: Callable[[Connection, _Call, str], None]) -> None:
        """Takes the plan, and what to call with each call that ended and its status."""
        self.calls: dict[int, _Call] = {}
        self.lost: str = ""
        self._closed = asyncio.Event()
        self._on_end = on_end
        self._window = plan.window
        self._headers = http2.request_headers(plan.address, plan.path, plan.timeout_s)
        self._statuses = http2.StatusReader()
        self._buffer = b""
        self._out: list[bytes] = []
        self._next_stream = 1
        self._blocked: deque[int] = deque()
        self._send_window = http2.DEFAULT_WINDOW
        self._stream_window = http2.DEFAULT_WINDOW
        self._frame_bytes = http2.DEFAULT_FRAME_BYTES
        self._unacknowledged = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the preface and our settings."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        ours = {
            http2.HEADER_TABLE_SIZE: 0,
            http2.ENABLE_PUSH: 0,
            http2.INITIAL_WINDOW_SIZE: self._window,
        }
        self._transport.write(http2.PREFACE + http2.settings_frame(ours))
        if self._window > http2.DEFAULT_WINDOW:
            self._transport.write(http2.window_update(0, self._window - http2.DEFAULT_WINDOW))

    def start(self, message: bytes, now: float) -> None:
        """Begins a call; `flush` sends it.

        Args:
            message: With its length before it.
            now: The time, `time.perf_counter()`.
        """
        number, self._next_stream = self._next_stream, self._next_stream + _STREAM_STEP
        call = self.calls[number] = _Call(now, self._stream_window)
        self._out.append(http2.frame(http2.HEADERS, http2.END_HEADERS, number, self._headers))
        size = len(message)
        if size <= min(self._send_window, call.send_window, self._frame_bytes):
            self._send_window -= size
            call.send_window -= size
            self._out.append(http2.frame(http2.DATA, http2.END_STREAM, number, message))
        else:
            call.unsent = message
            self._send(number, call)

    def flush(self) -> None:
        """Sends what is waiting."""
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    async def close(self) -> None:
        """Closes the connection."""
        self._transport.close()
        await self._closed.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all calls in flight."""
        self.lost = self.lost or f"connection lost: {exc or 'closed by the server'}"
        for number in list(self.calls):
            self._end(number, self.lost)
        self._closed.set()

    def data_received(self, data: bytes) -> None:
        """Reads whole frames, and keeps the rest."""
        buffer = self._buffer + data if self._buffer else data
        place, limit = 0, len(buffer)
        while limit - place >= http2.FRAME_HEADER_BYTES:
            high, low, kind, flags, number = struct.unpack_from(">BHBBI", buffer, place)
            end = place + http2.FRAME_HEADER_BYTES + (high << 16 | low)
            if end > limit:
                break
            self._read(kind, flags, number, buffer[place + http2.FRAME_HEADER_BYTES : end])
            place = end
        self._buffer = buffer[place:]
        self.flush()

    def _read(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == http2.DATA:
            self._read_data(flags, number, payload)
        elif kind in (http2.HEADERS, http2.CONTINUATION):
            self._read_headers(kind, flags, number, payload)
        elif kind == http2.WINDOW_UPDATE:
            self._widen(number, struct.unpack(">I", payload)[0])
        elif kind == http2.SETTINGS and not flags & http2.ACK:
            self._read_settings(http2.read_settings(payload))
        elif kind == http2.PING and not flags & http2.ACK:
            self._out.append(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif kind == http2.RST_STREAM:
            self._end(number, f"RST_STREAM {struct.unpack('>I', payload)[0]}")
        elif kind == http2.GOAWAY:
            self.lost = f"GOAWAY {struct.unpack_from('>I', payload, 4)[0]}"

    def _read_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._unacknowledged += size
        if self._unacknowledged * 2 >= self._window:
            self._out.append(http2.window_update(0, self._unacknowledged))
            self._unacknowledged = 0
        call = self.calls.get(number)
        if call is None:
            return
        call.unacknowledged += size
        if call.unacknowledged * 2 >= self._window:
            self._out.append(http2.window_update(number, call.unacknowledged))
            call.unacknowledged = 0
        call.chunks.append(payload[1 : size - payload[0]] if flags & http2.PADDED else payload)
        if flags & http2.END_STREAM:
            self._end(number, "no trailers")

    def _read_headers(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        call = self.calls.get(number)
        if call is None:
            return
        if kind == http2.HEADERS:
            if flags & http2.PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & http2.PRIORITY:
                payload = payload[5:]
            call.block = payload
            # The first frame says whether the stream ends; the block may go on in others.
            call.ended = bool(flags & http2.END_STREAM)
        else:
            call.block += payload
        if flags & http2.END_HEADERS and call.ended:
            self._end(number, self._statuses.status(call.block))

    def _read_settings(self, values: dict[int, int]) -> None:
        self._frame_bytes = values.get(http2.MAX_FRAME_SIZE, self._frame_bytes)
        window = values.get(http2.INITIAL_WINDOW_SIZE, self._stream_window)
        for call in self.calls.values():
            call.send_window += window - self._stream_window
        self._stream_window = window
        self._out.append(http2.frame(http2.SETTINGS, http2.ACK, 0))
        self._send_blocked()

    def _widen(self, number: int, size: int) -> None:
        if not number:
            self._send_window += size
        elif number in self.calls:
            self.calls[number].send_window += size
        self._send_blocked()

    def _send_blocked(self) -> None:
        for _ in range(len(self._blocked)):
            number = self._blocked.popleft()
            if number in self.calls:
                self._send(number, self.calls[number])

    def _send(self, number: int, call: _Call) -> None:
        """Sends what the windows admit of a message; the rest waits for them."""
        while call.unsent:
            size = min(len(call.unsent), self._send_window, call.send_window, self._frame_bytes)
            if size <= 0:
                self._blocked.append(number)
                return
            part, call.unsent = call.unsent[:size], call.unsent[size:]
            self._send_window -= size
            call.send_window -= size
            flags = 0 if call.unsent else http2.END_STREAM
            self._out.append(http2.frame(http2.DATA, flags, number, part))

    def _end(self, number: int, status: str) -> None:
        call = self.calls.pop(number, None)
        if call is not None:
            self._on_end(self, call, status)


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
        host, _, port = plan.address.rpartition(":")
        for _ in range(min(plan.connections, plan.in_flight)):
            _, connection = await loop.create_connection(
                lambda: Connection(plan, self._ended), host, int(port)
            )
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
            await asyncio.wait_for(self._idle.wait(), turns * plan.timeout_s + _GRACE_S)
        except TimeoutError:
            for connection in self._connections:
                connection.lost = connection.lost or "never ended"
        if self._counting:
            self._count(False)
        self._stopping = True
        for connection in self._connections:
            await connection.close()
        return _checked(self._outcome, plan.streaming)

    def _begin(self, connection: Connection) -> None:
        plan = self._plan
        if self._stopping or connection.lost or (not plan.seconds and self._begun >= plan.calls):
            return
        message = self._messages[self._begun % len(self._messages)]
        self._begun += 1
        connection.start(message, time.perf_counter())

    def _ended(self, connection: Connection, call: _Call, status: str) -> None:
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
