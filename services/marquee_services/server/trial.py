"""Tries a new release in a process of its own before the server loads it.

What goes wrong there (a crash, a hang, memory that grows without end) costs the server nothing. The
process has a limit of time and of memory, a low priority, and ends with the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import structlog

from marquee_core.errors import ArtifactError
from marquee_services.server.settings import ServerSettings

_log = structlog.get_logger()
_CHECK_S = 0.05
_MIB = 1024 * 1024
_VERSION = version("marquee-recommender")


class Trial:
    """Loads releases in processes of their own, as one server would."""

    def __init__(self, service: str, settings: ServerSettings) -> None:
        """Takes the service's name, from `marquee_core.service_names`, and its settings."""
        self._service = service
        self._settings = settings

    async def run(self, release_id: str) -> None:
        """Loads a release and does with it once what requests may ask for.

        A release that has passed on this machine before, in this version, is not tried again: a
        server that restarts is ready sooner.

        Raises:
            ArtifactError: The release cannot be loaded, or that took too much time or memory.
            OSError: The process cannot be started, or the store cannot be read.
        """
        passed = self._settings.cache / release_id / f".tried-{self._service}-{_VERSION}"
        if passed.exists():
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "marquee_services.trial",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        request = {
            "service": self._service,
            "release_id": release_id,
            "store": self._settings.store,
            "trusted_keys": self._settings.trusted_keys,
            "cache": str(self._settings.cache),
        }
        watch = asyncio.create_task(self._watch_memory(process.pid))
        answer = asyncio.create_task(process.communicate(json.dumps(request).encode()))
        try:
            done, _ = await asyncio.wait(
                (answer, watch),
                timeout=self._settings.trial_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                raise ArtifactError(
                    f"loading it on trial took more than {self._settings.trial_timeout:g} s"
                )
            if answer not in done:
                raise ArtifactError(
                    f"loading it on trial took more than {self._settings.trial_memory_mib} MiB"
                )
        finally:
            watch.cancel()
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait((answer,))
        _check(answer.result()[0], process.returncode)
        passed.touch()
        _log.info("release_tried", release_id=release_id)

    async def _watch_memory(self, pid: int) -> None:
        """Ends when the process uses more memory than it may; never if there is no limit."""
        limit = self._settings.trial_memory_mib * _MIB or sys.maxsize
        while _resident_bytes(pid) <= limit:
            await asyncio.sleep(_CHECK_S)


def _check(answer: bytes, status: int | None) -> None:
    """Raises what the process answered.

    Raises:
        ArtifactError: The release cannot be loaded, or the process ended without an answer.
        OSError: The store cannot be read.
    """
    try:
        found = json.loads(answer)
    except ValueError:
        raise ArtifactError(f"the process that loaded it on trial ended with {status}") from None
    if found.get("transient"):
        raise OSError(found["error"])
    if found.get("error"):
        raise ArtifactError(found["error"])


def _resident_bytes(pid: int) -> int:
    """The memory that a process uses; 0 if that cannot be known."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
