"""An HTTP/2 connection that makes gRPC calls with little CPU.

The header block of the requests is encoded once, and each distinct block of trailers is decoded
once. Frames produced while one chunk of input is processed are sent with a single write.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

from bench import http2

_STREAM_STEP = 2  # a client's streams have odd numbers


class Call:
    """A call in flight.

    Attributes:
        start: Start of the call, as returned by `time.perf_counter()`.
        chunks: The response's body received so far.
        block: The header block received so far.
        ended: Whether the block being received is the last of the stream (the trailers).
        unsent: The part of the request that the flow-control windows hold back.
        send_window: Bytes that the server still accepts on this stream.
        unacknowledged: Bytes received since the last WINDOW_UPDATE of this stream.
    """

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
    """Calls one gRPC method over one connection.

    Attributes:
        calls: The calls in flight, by stream id.
        lost: Why the connection accepts no more calls; "" while it does.
    """

    def __init__(
        self,
        authority: str,
        path: str,
        timeout_s: int,
        window: int,
        on_end: Callable[[Connection, Call, str], None],
        pause_s: float = 0.0,
    ) -> None:
        """Prepares the connection.

        Args:
            authority: The server as HOST:PORT.
            path: The method as /package.Service/Method.
            timeout_s: Deadline of each call in seconds.
            window: Receive window of each stream and of the connection, in bytes.
            on_end: Called when a call ends, with the connection, the call and its status: the
                number of the gRPC status, or a description of the failure.
            pause_s: Seconds to wait after each read before the next; see `LoadPlan`.
        """
        self.calls: dict[int, Call] = {}
        self.lost: str = ""
        self._closed = asyncio.Event()
        self._on_end = on_end
        self._window = window
        self._pause_s = pause_s
        self._headers = http2.request_headers(authority, path, timeout_s)
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
        """Sends the connection preface and our settings."""
        # uvloop's transports do not derive from asyncio's classes.
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
        """Starts a call; `flush` sends it.

        Args:
            message: The request with its gRPC prefix.
            now: The current `time.perf_counter()`.
        """
        number, self._next_stream = self._next_stream, self._next_stream + _STREAM_STEP
        call = self.calls[number] = Call(now, self._stream_window)
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
        """Sends the frames that have been queued."""
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    async def close(self) -> None:
        """Closes the connection and waits until it is closed."""
        self._transport.close()
        await self._closed.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all calls in flight with an error."""
        self.lost = self.lost or f"connection lost: {exc or 'closed by the server'}"
        for number in list(self.calls):
            self._end(number, self.lost)
        self._closed.set()

    def data_received(self, data: bytes) -> None:
        """Processes complete frames and buffers an incomplete one."""
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
        if self._pause_s:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._pause_s, self._resume)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

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
            # END_STREAM is a flag of this frame, though CONTINUATION frames may complete the block.
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

    def _send(self, number: int, call: Call) -> None:
        """Queues as much of a message as the flow-control windows allow, and blocks the rest."""
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
