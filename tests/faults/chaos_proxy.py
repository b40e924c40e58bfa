"""A TCP proxy that delays a server's responses; it runs in its own thread."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536


class ChaosProxy:
    """Forwards connections to one server.

    Attributes:
        address: The address that it listens on, host:port.
        delay_s: Delay of responses in seconds; may be changed at any time.
    """

    def __init__(self, target: str) -> None:
        """Starts listening on a free port of the loopback interface.

        Args:
            target: The server's address, host:port.
        """
        self.delay_s = 0.0
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self.address = f"127.0.0.1:{listening.result()}"

    def close(self) -> None:
        """Closes all connections and stops listening."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError):
                await self._forward(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards both directions of a connection until one of them is closed."""
        from_server = asyncio.Queue[tuple[float, bytes]]()
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)

        async def send_requests() -> None:
            while data := await reader.read(_CHUNK_BYTES):
                server_writer.write(data)
                await server_writer.drain()

        async def read_answers() -> None:
            while data := await server_reader.read(_CHUNK_BYTES):
                from_server.put_nowait((self._loop.time() + self.delay_s, data))

        async def send_answers() -> None:
            while True:
                due, data = await from_server.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                writer.write(data)
                await writer.drain()

        directions = [
            asyncio.ensure_future(direction())
            for direction in (send_requests, read_answers, send_answers)
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            server_writer.close()
