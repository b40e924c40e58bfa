"""Tries a new release in a process of its own before the server loads it.

What goes wrong there (a crash, a hang, memory that grows without end) costs the server nothing. The
process has a limit of time and of memory, a low priority, and ends with the server.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog

from marquee_core.errors import ArtifactError
from marquee_services.server.settings import ServerSettings
from marquee_services.server.trial_host import TrialHost

_log = structlog.get_logger()
_CHECK_S = 0.05
_MIB = 1024 * 1024
_PRIORITY = 5
# What decides whether a release can be loaded: if one of them changes, it is tried again.
_PACKAGES = ("marquee-recommender", "numpy", "scipy", "faiss-cpu", "tensorflow-cpu", "protobuf")

LoadForTrial = Callable[[str], object]
"""Loads the part of a release that a server needs."""


class Trial:
    """Loads releases in processes of their own, as one server would."""

    def __init__(self, service: str, settings: ServerSettings, host: TrialHost) -> None:
        """Takes the service's name, its settings, and what starts the processes."""
        self._service = service
        self._settings = settings
        self._host = host

    async def run(self, release_id: str, digest: str) -> None:
        """Loads a release and does with it once what requests may ask for.

        A release that has passed on this machine before is not tried again, so that a server that
        restarts is ready sooner. That holds for the same content only, and for the same versions of
        what loads it: both are in the marker that a trial leaves beside the copies.

        Args:
            release_id: The release.
            digest: The digest of its manifest, and so of all its files.

        Raises:
            ArtifactError: The release cannot be loaded, or that took too much time or memory.
            OSError: The process cannot be started, or the store cannot be read.
        """
        marker = self._settings.cache / release_id / f".tried-{self._service}"
        passed = f"{digest} {_versions()}\n"
        with suppress(OSError, UnicodeDecodeError):
            if marker.read_text() == passed:
                return
        answer = await self._host.ask(
            {"service": self._service, "release_id": release_id},
            self._settings.trial_timeout,
            self._watch_memory,
        )
        if answer.get("timeout"):
            raise ArtifactError(
                f"loading it on trial took more than {self._settings.trial_timeout:g} s"
            )
        if answer.get("limit"):
            raise ArtifactError(
                f"loading it on trial took more than {self._settings.trial_memory_mib} MiB"
            )
        if answer.get("transient"):
            raise OSError(answer["error"])
        if answer["error"]:
            raise ArtifactError(answer["error"])
        marker.write_text(passed)
        _log.info("release_tried", release_id=release_id)

    async def _watch_memory(self, pid: int) -> None:
        """Ends when the process has taken more memory of its own than it may."""
        limit = self._settings.trial_memory_mib * _MIB or sys.maxsize
        while _own_bytes(pid) <= limit:
            await asyncio.sleep(_CHECK_S)


def start_trial_host(loaders: dict[str, LoadForTrial]) -> TrialHost:
    """Starts the process that tries releases; see `TrialHost.start`.

    Args:
        loaders: What loads the part of a release that a service needs, by the service's name.

    Raises:
        OSError: The process cannot be started.
    """

    def load(request: dict[str, Any]) -> dict[str, Any]:
        os.nice(_PRIORITY)
        with suppress(OSError):
            # If the container's memory runs out, the kernel ends this process, not the server.
            Path("/proc/self/oom_score_adj").write_text("1000")
        try:
            loaders[request["service"]](request["release_id"])
        except (OSError, MemoryError) as error:
            return {"error": str(error) or type(error).__name__, "transient": True}
        except Exception as error:
            return {"error": str(error) or repr(error), "transient": False}
        return {"error": "", "transient": False}

    return TrialHost.start(load)


def _versions() -> str:
    """The versions of Python and of the packages that load releases."""
    found = [f"python={sys.version_info.major}.{sys.version_info.minor}"]
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name}={version(name)}")
    return " ".join(found)


def _own_bytes(pid: int) -> int:
    """The memory that a process uses and does not share; 0 if that cannot be known."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
