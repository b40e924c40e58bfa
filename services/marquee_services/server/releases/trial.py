"""Loads a new release in a separate process on trial, before the server loads it.

A crash, a hang or a memory leak in that process does not affect the server. The process has limits
on time and memory, and ends when the server ends.

If the server is serving another release, the trial first runs with the scheduling policy SCHED_IDLE
of Linux, whose tasks give way to all others immediately; even with a low priority, calls would wait
for the end of its time slice of about three milliseconds. On a machine without idle CPUs it would
never end, so that it is then started again with a low priority.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog

from marquee_core.errors import ArtifactError
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.settings import ServerSettings

_log = structlog.get_logger()
_CHECK_S = 0.05
# The most time that a trial may wait for a CPU, as a multiple of its time limit.
_MAX_WAIT = 9.0
# How many seconds one that gives way to everything else may wait for a CPU, so that a promotion is
# served within five seconds even if no CPU is ever idle.
_MAX_IDLE_WAIT_S, _STARVED = 0.9, "had no CPU"
_MIB = 1024 * 1024
# Packages that load releases: if the version of one changes, the trial is repeated.
_PACKAGES = ("marquee-recommender", "numpy", "scipy", "faiss-cpu", "tensorflow-cpu", "protobuf")


class ReleaseTrial:
    """Loads releases in separate processes, as a server would load them."""

    def __init__(self, service: str, settings: ServerSettings, fork_server: ForkServer) -> None:
        """Creates the trials of a service.

        Args:
            service: The service's name.
            settings: The service's settings.
            fork_server: Starts the processes.
        """
        self._service = service
        self._settings = settings
        self._fork_server = fork_server
        # Found now, because this reads files and would delay calls.
        self._versions = _versions()

    async def run(self, release_id: str, digest: str, is_serving: bool) -> None:
        """Loads a release in a separate process and executes every kind of request on it once.

        The trial of a release that has passed on this machine is not repeated, so that a restarted
        server is ready sooner. A passed trial leaves a marker next to the copies of the release. It
        is valid for the same content and the same versions of the packages that load the release.

        Args:
            release_id: The release.
            digest: The digest of its manifest, which covers the digests of all its files.
            is_serving: Whether the server has another release, so that the trial first runs only
                while CPUs are idle. A server that starts must be ready soon instead.

        Raises:
            ArtifactError: The release cannot be loaded, or loading it took too much time or memory.
            OSError: The process cannot be started, or the store cannot be read.
        """
        marker = self._settings.cache / release_id / f".tried-{self._service}"
        passed = f"{digest} {self._versions}\n"
        with suppress(OSError, UnicodeDecodeError):
            if marker.read_text() == passed:
                return
        request = {"service": self._service, "release_id": release_id}
        answer: dict[str, Any] | None = None
        if is_serving:
            answer = await self._fork_server.request(
                {**request, "is_idle": True}, partial(self._watch, max_wait_s=_MAX_IDLE_WAIT_S)
            )
        if answer is None or answer.get("killed") == _STARVED:
            answer = await self._fork_server.request({**request, "is_idle": False}, self._watch)
        if answer.get("transient"):
            raise OSError(answer["error"])
        if "killed" in answer:
            raise ArtifactError(f"loading it on trial {answer['killed']}")
        if answer["error"]:
            raise ArtifactError(answer["error"])
        marker.write_text(passed)
        _log.info("release_tried", release_id=release_id)

    async def _watch(self, pid: int, max_wait_s: float = math.inf) -> str:
        """Returns when a process exceeds a limit, with a description of that limit.

        The time for which the process waits for a CPU does not count, up to a multiple of the time
        limit: on a busy machine, a good release takes longer. A process that hangs does not wait
        for a CPU.

        Args:
            pid: The id of the process, or of the host that forks it.
            max_wait_s: How long it may wait for a CPU in seconds.
        """
        memory = self._settings.trial_memory_mib * _MIB or sys.maxsize
        seconds, start = self._settings.trial_timeout, time.monotonic()
        waited_before = _waited_s(pid)
        while _own_bytes(pid) <= memory:
            took, waited = time.monotonic() - start, _waited_s(pid) - waited_before
            if took - min(waited, _MAX_WAIT * seconds) > seconds:
                return f"took longer than {seconds:g} s"
            if waited > max_wait_s:
                return _STARVED
            await asyncio.sleep(_CHECK_S)
        return f"needed more than {self._settings.trial_memory_mib} MiB"


def _versions() -> str:
    """Returns the versions of Python and of the packages that load releases."""
    found = [f"python={sys.version_info.major}.{sys.version_info.minor}"]
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name}={version(name)}")
    return " ".join(found)


def _own_bytes(pid: int) -> int:
    """Returns the private memory of a process in bytes; 0 if it cannot be read."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _waited_s(pid: int) -> float:
    """Returns for how long a process was ready to run, but had no CPU, in seconds.

    That of its main thread, which loads the release; 0 if it cannot be read.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
