"""A process that forks a new process for each trial of a release.

It is forked from the server before the server starts threads, and shares the memory of the
libraries that the server has imported. A trial therefore need not import them again, which takes
seconds with TensorFlow, and needs no additional memory for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
_LINE = 64 * 1024

Load = Callable[[dict[str, Any]], dict[str, Any]]


class ForkServer:
    """The server's end of the connection to the process.

    Attributes:
        pid: The id of the process.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        """Wraps a process and the connection to it; use `start` to create one."""
        self.pid = pid
        self._connection = connection
        self._connection.setblocking(False)
        self._received = b""
        self._lock = asyncio.Lock()

    @classmethod
    def start(cls, load: Load) -> ForkServer:
        """Forks the process. Must be called before the server starts threads or opens sockets.

        Args:
            load: Answers a request in the process that is forked for it.

        Raises:
            OSError: The process cannot be started.
        """
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            try:
                _end_with_parent(parent)
                _serve(theirs, load)
            finally:
                os._exit(0)
        theirs.close()
        return cls(pid, ours)

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
                raise OSError("the process that tries releases has ended")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def _serve(connection: socket.socket, load: Load) -> None:
    """Forks once for each request, and returns the answers to the server."""
    signal.set_wakeup_fd(-1)  # Detach from the server's event loop.
    # This process ends only when the server ends.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with connection.makefile("rwb") as stream:
        for line in stream:
            read_end, write_end = os.pipe()
            host = os.getpid()
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                connection.close()
                try:
                    _end_with_parent(host)
                    with os.fdopen(write_end, "wb") as output:
                        output.write(json.dumps(load(json.loads(line))).encode())
                finally:
                    os._exit(0)
            os.close(write_end)
            stream.write(json.dumps({"pid": pid}).encode() + b"\n")
            stream.flush()
            with os.fdopen(read_end, "rb") as source:
                answer = source.read()
            _, status = os.waitpid(pid, 0)
            if not answer:
                ended = os.waitstatus_to_exitcode(status)
                error = f"the process that loaded it on trial ended with {ended}"
                answer = json.dumps({"error": error}).encode()
            stream.write(answer + b"\n")
            stream.flush()


def _end_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when its parent ends for any reason."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
