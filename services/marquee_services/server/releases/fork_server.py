"""Starts the process that forks the processes of trials, and sends it requests.

The process takes as much memory as a server without a release, so it runs only during trials. It is
started as a new program: a server has threads, and a process with threads must not be forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Self

_LINE = 64 * 1024
# The process ends after this many seconds without a trial.
_IDLE_S = 10.0
_ENDING_S = 0.05

ENDED = "the process that tries releases has ended"


class ForkServer:
    """Has requests answered by newly forked processes that already have the server's libraries.

    As a context manager, it ends the process that forks them at the end.
    """

    def __init__(
        self, command: Sequence[str], settings: Mapping[str, Any], idle_s: float = _IDLE_S
    ) -> None:
        """Creates the fork server; its process starts with the first request.

        Args:
            command: The program to run, which calls `fork_process.serve_trials`.
            settings: What the program needs to know, as values of JSON.
            idle_s: The process ends after this many seconds without a request.
        """
        self._command = command
        self._settings = settings
        self._idle_s = idle_s
        self._host: _Host | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def request(
        self, request: dict[str, Any], watch: Callable[[int], Coroutine[Any, Any, str]]
    ) -> dict[str, Any]:
        """Sends a request to a newly forked process, and returns its answer.

        Args:
            request: The request.
            watch: Returns a coroutine that returns when the process with the given id must be
                killed, with the reason.

        Returns:
            The answer; if the process was killed, with the reason as `killed`. If the program
            ended, an error that is `transient`.

        Raises:
            OSError: The program cannot be started.
        """
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            if self._host is None:
                self._host = _Host(self._command, self._settings)
            try:
                return await self._host.request(request, watch)
            except ConnectionError:
                self._end()
                return {"error": ENDED, "transient": True}
            except BaseException:
                # Part of an answer may be left on the connection.
                self._end()
                raise
            finally:
                self._idle = asyncio.create_task(self._end_when_idle())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._end()
        await asyncio.gather(*self._ending)

    async def _end_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        self._end()

    def _end(self) -> None:
        """Ends the process, if it runs."""
        host, self._host = self._host, None
        if host is not None:
            ending = asyncio.create_task(host.end())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


class _Host:
    """The running program, and the connection to it."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Starts the program.

        Raises:
            OSError: The program cannot be started.
        """
        self._connection, theirs = socket.socketpair()
        with theirs:
            # In a session of its own, so that Ctrl-C reaches only the server.
            self._process = subprocess.Popen(  # noqa: S603 # nosec B603
                command, stdin=theirs.fileno(), start_new_session=True
            )
        self._connection.setblocking(False)
        self._unsent = _line_of({"parent": os.getpid(), "settings": dict(settings)})
        self._received = b""

    async def end(self) -> None:
        """Ends the process; a process that it has forked ends with it."""
        self._connection.close()
        self._process.kill()
        while self._process.poll() is None:
            await asyncio.sleep(_ENDING_S)

    async def request(
        self, request: dict[str, Any], watch: Callable[[int], Coroutine[Any, Any, str]]
    ) -> dict[str, Any]:
        """Sends a request and returns the answer; see `ForkServer.request`.

        Raises:
            ConnectionError: The process has ended.
        """
        message, self._unsent = self._unsent + _line_of(request), b""
        await asyncio.get_running_loop().sock_sendall(self._connection, message)
        pid = int((await self._line())["pid"])
        answer = asyncio.create_task(self._line())
        watching = asyncio.create_task(watch(pid))
        killed: dict[str, Any] = {}
        try:
            await asyncio.wait((answer, watching), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                killed["killed"] = watching.result()
                _kill(pid)
                await asyncio.wait((answer,))
        finally:
            watching.cancel()
            if not answer.done():
                answer.cancel()
                _kill(pid)
        return {**answer.result(), **killed}

    async def _line(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._received:
            chunk = await loop.sock_recv(self._connection, _LINE)
            if not chunk:
                raise ConnectionResetError(ENDED)
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _line_of(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
