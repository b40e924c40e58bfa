"""Starts the process that forks the processes of trials.

Imports little, because the process is forked before the server imports its libraries.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from marquee_services.server.releases.fork_process import Load, fork

TrialLoader: TypeAlias = Callable[[str], object]
"""Loads the part of a release that a server needs, given the release's id."""


def fork_for_trials(
    prepare: Callable[[], Mapping[str, TrialLoader]],
) -> tuple[int, socket.socket]:
    """Starts the process; see `fork_process.fork`.

    Args:
        prepare: Imports the libraries, and returns by service the function that loads the part of
            a release that the service needs.

    Raises:
        OSError: The process cannot be started.
    """

    def prepare_loading() -> Load:
        loaders = prepare()

        def load(request: dict[str, Any]) -> dict[str, Any]:
            return _load(loaders[request["service"]], request["release_id"])

        return load

    return fork(prepare_loading)


def _load(load: TrialLoader, release_id: str) -> dict[str, Any]:
    """Loads a release, and returns the result of the trial."""
    with suppress(OSError):
        # If the container runs out of memory, the kernel kills this process, not the server.
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        load(release_id)
    except (OSError, MemoryError) as error:
        return {"error": str(error) or type(error).__name__, "transient": True}
    except Exception as error:
        return {"error": str(error) or repr(error), "transient": False}
    return {"error": "", "transient": False}
