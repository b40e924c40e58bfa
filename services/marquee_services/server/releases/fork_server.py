"""Starts the process that forks the processes of trials, and sends it requests.

The process takes as much memory as a server without a release, so it runs only during trials. It is
started as a new program: a server has threads, and a process with threads must not be forked.

A request says whether it may run only while CPUs are idle (`is_idle`). The program imports the
libraries under the same policy, because imports take longer than many trials and would delay calls.
Unprivileged processes cannot leave the policy SCHED_IDLE, so a request with the other policy gets a
new process.
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
_PRIORITY = 5

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
            request: The request, whose `is_idle` says whether it may run only while CPUs are idle.
            watch: Returns a coroutine that returns when the process with the given id must be
                killed, with the reason. It watches the program until that has imported the
                libraries and forked the process, and then the process.

        Returns:
            The answer; if one of the two was killed, with the reason as `killed`. If the program
            ended, an error that is `transient`.

        Raises:
            OSError: The program cannot be started.
        """
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            if self._host is not None and self._host.is_idle != request["is_idle"]:
                self._end()
            if self._host is None:
                self._host = _Host(self._command, self._settings, request["is_idle"])
            is_complete = False
            try:
                answer = await self._host.request(request, watch)
                is_complete = not self._host.has_ended
                return answer
            finally:
                if not is_complete:  # Part of an answer may be left on the connection.
                    self._end()
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
    """The running program, and the connection to it.

    Attributes:
        is_idle: Whether it runs only while CPUs are idle.
        has_ended: Whether it has ended, so that it answers no further requests.
    """

    def __init__(self, command: Sequence[str], settings: Mapping[str, Any], is_idle: bool) -> None:
        """Starts the program.

        Args:
            command: See `ForkServer`.
            settings: See `ForkServer`.
            is_idle: Whether it runs only while CPUs are idle.

        Raises:
            OSError: The program cannot be started.
        """
        self._connection, theirs = socket.socketpair()
        with theirs:
            # In a session of its own, so that Ctrl-C reaches only the server.
            self._process = subprocess.Popen(  # noqa: S603 # nosec B603
                command, stdin=theirs.fileno(), start_new_session=True
            )
        _give_way(self._process.pid, is_idle)
        self.is_idle = is_idle
        self.has_ended = False
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
        """Sends a request and returns the answer; see `ForkServer.request`."""
        message, self._unsent = self._unsent + _line_of(request), b""
        with contextlib.suppress(ConnectionError):  # Reading notices it too.
            await asyncio.get_running_loop().sock_sendall(self._connection, message)
        line = {"pid": self._process.pid}
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
                _kill(pid)
                await asyncio.wait((line,))
        finally:
            watching.cancel()
            if not line.done():
                line.cancel()
                _kill(pid)
        try:
            return {**line.result(), **killed}
        except ConnectionError:
            self.has_ended = True
            return {"error": ENDED, "transient": True, **killed}

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


def _give_way(pid: int, is_idle: bool) -> None:
    """Lowers the priority of a process, so that it delays the server's calls less."""
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, _PRIORITY)
        if is_idle and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _line_of(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
