"""Loads releases on trial, in processes that are forked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from marquee_services.server.releases.fork_process import Load, serve_trials

TrialLoader: TypeAlias = Callable[[str], object]
"""Loads the part of a release that a server needs, given the release's id."""


def try_releases(prepare: Callable[[dict[str, Any]], Mapping[str, TrialLoader]]) -> None:
    """Answers the requests of `ReleaseTrial` until the server ends; see `serve_trials`.

    Args:
        prepare: Imports the libraries, and returns by service the function that loads the part of
            a release that the service needs. It gets the server's settings.
    """

    def prepare_loading(settings: dict[str, Any]) -> Load:
        loaders = prepare(settings)

        def load(request: dict[str, Any]) -> dict[str, Any]:
            return _load(loaders[request["service"]], request["release_id"])

        return load

    serve_trials(prepare_loading)


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
