"""A process that imports a server's libraries and forks a new process for each trial of a release.

`fork_server.py` starts it for a trial, and ends it once there has been none for a while. Several
trials, as at the start of a standalone server, share the imports.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, TypeAlias

_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h

Load: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers a request in the process that is forked for it."""


def serve_trials(prepare: Callable[[dict[str, Any]], Load]) -> None:
    """Forks a process for each request that arrives on stdin, a socket, until it is closed.

    The first line on the socket is the greeting of `ForkServer`. For each request, a line with the
    id of the forked process is sent, then a line with its answer.

    Args:
        prepare: Imports the libraries, and returns the function that answers the requests. It gets
            the settings in the greeting.
    """
    connection = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    with connection.makefile("rwb") as stream:
        line = stream.readline()
        if not line:
            return
        greeting = json.loads(line)
        _end_with_parent(greeting["parent"])
        load = prepare(greeting["settings"])
        for line in stream:
            read_end, write_end = os.pipe()
            host = os.getpid()
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                os.close(connection.detach())
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
