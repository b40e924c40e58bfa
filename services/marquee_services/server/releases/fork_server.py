"""The connection of a server to the process that forks the processes of trials."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from marquee_services.server.releases.fork_process import ENDED

_LINE = 64 * 1024


class ForkServer:
    """The server's end of the connection to the process.

    Attributes:
        pid: The id of the process.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        """Wraps a process and the connection to it; see `fork_process.fork`."""
        self.pid = pid
        self._connection = connection
        self._connection.setblocking(False)
        self._received = b""
        self._lock = asyncio.Lock()

    async def request(
        self, request: dict[str, Any], watch: Callable[[int], Coroutine[Any, Any, str]]
    ) -> dict[str, Any]:
        """Sends a request to a newly forked process, and returns its answer.

        Args:
            request: The request, whose `is_idle` says whether it may run only while CPUs are idle.
            watch: Returns a coroutine that returns when the process with the given id must be
                killed, with the reason. It watches the host until that has imported the libraries
                and forked the process, and then the process.

        Returns:
            The answer; if one of the two was killed, with the reason as `killed`. An answer whose
            host has ended is `transient`.

        Raises:
            OSError: The fork server does not answer.
        """
        loop = asyncio.get_running_loop()
        async with self._lock:
            await loop.sock_sendall(self._connection, json.dumps(request).encode() + b"\n")
            line = await self._line()
            while "error" not in line:
                line = await self._watched_line(int(line["pid"]), watch)
            return line

    async def _watched_line(
        self, pid: int, watch: Callable[[int], Coroutine[Any, Any, str]]
    ) -> dict[str, Any]:
        """Returns the next line; kills a process if its watch ends before the line comes."""
        line = asyncio.create_task(self._line())
        watching = asyncio.create_task(watch(pid))
        killed: dict[str, Any] = {}
        try:
            await asyncio.wait((line, watching), return_when=asyncio.FIRST_COMPLETED)
            if not line.done():
                killed["killed"] = watching.result()
        finally:
            watching.cancel()
            if not line.done():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                await asyncio.wait((line,))
        return {**line.result(), **killed}

    async def _line(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._received:
            chunk = await loop.sock_recv(self._connection, _LINE)
            if not chunk:
                raise OSError(ENDED)
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found
