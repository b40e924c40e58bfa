"""An attacker process that opens connections as no legitimate client would.

    python -m faults.attacker KIND HOST:PORT --connections 25 --streams 41

It writes a line to stdout once the attack is under way, and exits when its stdin is closed. It
connects from its own source address, so the server can distinguish it from other callers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bench import http2
from bench.connection import Call, Connection
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

_C = TypeVar("_C", bound=Connection)

UNREAD_BATCHES, UNREAD_ANSWERS, SILENT_STREAMS = "unread-batches", "unread-answers", "silent"
RESETS, EMPTY_SUBJECTS, IDLE_CONNECTIONS = "resets", "empty-subjects", "idle-connections"
KINDS = (
    *(UNREAD_BATCHES, UNREAD_ANSWERS, SILENT_STREAMS),
    *(RESETS, EMPTY_SUBJECTS, IDLE_CONNECTIONS),
)
SOURCE = "127.0.0.2"
TESTS_ON_PATH = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
"""Environment variables for subprocesses that import modules from `tests/`."""

_SERVICE = "/marquee.v1.RecommenderService"
_TIMEOUT_S = 3600
_BATCH_SUBJECTS = 1_000
_EMPTY_SUBJECTS = 2_000_000
_CANCEL = struct.pack(">I", 8)
# Streams that are opened and reset in a single write.
_RESETS_PER_WRITE = 50
_PAUSE_S = 0.001


class Unread(Connection):
    """Reads from the socket, but never opens the flow-control window again."""

    def _read_data(self, flags: int, number: int, payload: bytes) -> None:
        """Discards the data without a window update."""


class Silent(Connection):
    """Opens streams and never sends a request on them."""

    def begin(self) -> None:
        """Queues the headers of one call."""
        number, self._next_stream = self._next_stream, self._next_stream + 2
        self.calls[number] = Call(time.monotonic(), 0)
        self._out.append(http2.frame(http2.HEADERS, http2.END_HEADERS, number, self._headers))


class Resetting(Connection):
    """Starts calls and resets each immediately."""

    def begin(self, message: bytes) -> None:
        """Queues one call and its reset."""
        number, self._next_stream = self._next_stream, self._next_stream + 2
        self._out += (
            http2.frame(http2.HEADERS, http2.END_HEADERS, number, self._headers),
            http2.frame(http2.DATA, http2.END_STREAM, number, message),
            http2.frame(http2.RST_STREAM, 0, number, _CANCEL),
        )


@contextmanager
def attack(kind: str, address: str, connections: int, streams: int = 0) -> Iterator[None]:
    """Attacks a server from a separate process for the duration of the context.

    Args:
        kind: One of `KINDS`.
        address: The server as HOST:PORT.
        connections: Number of connections.
        streams: Number of concurrent calls on each connection.

    Raises:
        RuntimeError: The attack did not start.
    """
    command = [sys.executable, "-m", "faults.attacker", kind, address]
    command += [f"--connections={connections}", f"--streams={streams}"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=TESTS_ON_PATH,
    )
    assert process.stdin
    assert process.stdout
    try:
        if not process.stdout.readline():
            raise RuntimeError("the attack did not start")
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _batch(subjects: int) -> bytes:
    known = [types_pb2.Subject(user_id=f"u{n % 20}") for n in range(subjects)]
    request = pb.BatchRecommendRequest(subjects=known, page_size=100)
    return http2.grpc_message(request.SerializeToString())


def _single() -> bytes:
    options = pb.RecommendOptions(include_metadata=True)
    request = pb.RecommendRequest(
        subject=types_pb2.Subject(user_id="u1"), page_size=100, options=options
    )
    return http2.grpc_message(request.SerializeToString())


async def connect(connection: _C, address: str) -> _C:
    """Connects from the attacker's source address, and returns the connection."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, host, int(port), local_addr=(SOURCE, 0))
    return connection


class _Attack:
    """An attack on one server."""

    def __init__(self, address: str, connections: int, streams: int) -> None:
        self._address = address
        self._connections = connections
        self._streams = streams
        self.ended: dict[str, int] = {}

    async def run(self, kind: str, under_way: Callable[[], None]) -> None:
        """Runs an attack until it is cancelled; calls `under_way` while it lasts."""
        methods = {
            UNREAD_BATCHES: self._unread_batches,
            UNREAD_ANSWERS: self._unread_answers,
            SILENT_STREAMS: self._silent_streams,
            RESETS: self._resets,
            EMPTY_SUBJECTS: self._empty_subjects,
            IDLE_CONNECTIONS: self._idle_connections,
        }
        await methods[kind](under_way)
        await asyncio.Event().wait()

    def _arguments(
        self, method: str, window: int
    ) -> tuple[str, str, int, int, Callable[..., None]]:
        return self._address, f"{_SERVICE}/{method}", _TIMEOUT_S, window, self._end

    def _end(self, _connection: Connection, _call: Call, status: str) -> None:
        self.ended[status] = self.ended.get(status, 0) + 1

    async def _open(self, make: Callable[[], Connection]) -> list[Connection]:
        return [await connect(make(), self._address) for _ in range(self._connections)]

    async def _unread(self, method: str, message: bytes, under_way: Callable[[], None]) -> None:
        opened = await self._open(lambda: Unread(*self._arguments(method, 1)))
        while True:
            for connection in opened:
                while len(connection.calls) < self._streams and not connection.lost:
                    connection.start(message, 0.0)
                connection.flush()
            under_way()
            await asyncio.sleep(0.1)

    async def _unread_batches(self, under_way: Callable[[], None]) -> None:
        await self._unread("BatchRecommend", _batch(_BATCH_SUBJECTS), under_way)

    async def _unread_answers(self, under_way: Callable[[], None]) -> None:
        await self._unread("Recommend", _single(), under_way)

    async def _silent_streams(self, under_way: Callable[[], None]) -> None:
        opened = [
            await connect(Silent(*self._arguments("Recommend", 65_536)), self._address)
            for _ in range(self._connections)
        ]
        for connection in opened:
            for _ in range(self._streams):
                connection.begin()
            connection.flush()
            await asyncio.sleep(0)
        under_way()

    async def _resets(self, under_way: Callable[[], None]) -> None:
        message = _single()
        opened: list[Resetting] = []
        while True:
            opened = [connection for connection in opened if not connection.lost]
            while len(opened) < self._connections:
                connection = Resetting(*self._arguments("Recommend", 65_536))
                opened.append(await connect(connection, self._address))
            for connection in opened:
                for _ in range(_RESETS_PER_WRITE):
                    connection.begin(message)
                connection.flush()
            under_way()
            await asyncio.sleep(_PAUSE_S)

    async def _empty_subjects(self, under_way: Callable[[], None]) -> None:
        message = http2.grpc_message(b"\x0a\x00" * _EMPTY_SUBJECTS)
        opened = await self._open(lambda: Connection(*self._arguments("BatchRecommend", 65_536)))
        while True:
            for connection in opened:
                if not connection.calls and not connection.lost:
                    connection.start(message, 0.0)
                    connection.flush()
            under_way()
            await asyncio.sleep(_PAUSE_S)

    async def _idle_connections(self, under_way: Callable[[], None]) -> None:
        host, _, port = self._address.rpartition(":")
        opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while True:
            opened = [pair for pair in opened if not pair[0].at_eof()]
            for _ in range(self._connections - len(opened)):
                try:
                    opened.append(
                        await asyncio.open_connection(host, int(port), local_addr=(SOURCE, 0))
                    )
                except OSError:
                    break
            under_way()
            await asyncio.sleep(0.1)


async def _main(arguments: argparse.Namespace) -> None:
    announced = False

    def under_way() -> None:
        nonlocal announced
        if not announced:
            announced = True
            sys.stdout.write("under way\n")
            sys.stdout.flush()

    running = _Attack(arguments.address, arguments.connections, arguments.streams)
    task = asyncio.create_task(running.run(arguments.kind, under_way))
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
    sys.stderr.write(f"{arguments.kind}: finished calls by status {running.ended}\n")
    task.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("address")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--streams", type=int, default=0)
    asyncio.run(_main(parser.parse_args()))
