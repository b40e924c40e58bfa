"""Loads a new release in a separate process on trial, before the server loads it.

A crash, a hang or a memory leak in that process does not affect the server. The process has limits
on time and memory and a low priority, and ends when the server ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from marquee_core.errors import ArtifactError
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.settings import ServerSettings

_log = structlog.get_logger()
_CHECK_S = 0.05
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

    async def run(self, release_id: str, digest: str) -> None:
        """Loads a release in a separate process and executes every kind of request on it once.

        The trial of a release that has passed on this machine is not repeated, so that a restarted
        server is ready sooner. A passed trial leaves a marker next to the copies of the release. It
        is valid for the same content and the same versions of the packages that load the release.

        Args:
            release_id: The release.
            digest: The digest of its manifest, which covers the digests of all its files.

        Raises:
            ArtifactError: The release cannot be loaded, or loading it took too much time or memory.
            OSError: The process cannot be started, or the store cannot be read.
        """
        marker = self._settings.cache / release_id / f".tried-{self._service}"
        passed = f"{digest} {_versions()}\n"
        with suppress(OSError, UnicodeDecodeError):
            if marker.read_text() == passed:
                return
        answer = await self._fork_server.request(
            {"service": self._service, "release_id": release_id},
            self._settings.trial_timeout,
            self._watch_memory,
        )
        if answer.get("timeout"):
            raise ArtifactError(
                f"loading it on trial took longer than {self._settings.trial_timeout:g} s"
            )
        if answer.get("limit"):
            raise ArtifactError(
                f"loading it on trial needed more than {self._settings.trial_memory_mib} MiB"
            )
        if answer.get("transient"):
            raise OSError(answer["error"])
        if answer["error"]:
            raise ArtifactError(answer["error"])
        marker.write_text(passed)
        _log.info("release_tried", release_id=release_id)

    async def _watch_memory(self, pid: int) -> None:
        """Returns when the process exceeds its limit of private memory."""
        limit = self._settings.trial_memory_mib * _MIB or sys.maxsize
        while _own_bytes(pid) <= limit:
            await asyncio.sleep(_CHECK_S)


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
