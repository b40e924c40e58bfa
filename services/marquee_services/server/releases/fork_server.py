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
            request: The request.
            watch: Returns a coroutine that returns when the process with the given id must be
                killed, with the reason.

        Returns:
            The answer; if the process was killed, with the reason as `killed`.

        Raises:
            OSError: The fork server does not answer.
        """
        loop = asyncio.get_running_loop()
        async with self._lock:
            await loop.sock_sendall(self._connection, json.dumps(request).encode() + b"\n")
            pid = int((await self._line())["pid"])
            answer = asyncio.create_task(self._line())
            watching = asyncio.create_task(watch(pid))
            killed: dict[str, Any] = {}
            try:
                await asyncio.wait((answer, watching), return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    killed["killed"] = watching.result()
            finally:
                watching.cancel()
                if not answer.done():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    await asyncio.wait((answer,))
            return {**answer.result(), **killed}

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
