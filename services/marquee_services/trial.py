"""Loads a release as one server would, and says whether that worked; see `server/trial.py`.

Reads a JSON object from stdin (`service`, `release_id`, `store`, `trusted_keys`, `cache`) and
writes one to stdout: `error` is empty if the release can be loaded, and `transient` tells whether
another attempt may succeed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PRIORITY = 10
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def main() -> None:
    """Reads the request, loads the release, and writes the answer."""
    os.nice(_PRIORITY)
    _be_killed_first()
    _end_with_parent()
    request = json.loads(sys.stdin.read())
    answer = {"error": "", "transient": False}
    try:
        _load(**request)
    except (OSError, MemoryError) as error:
        answer = {"error": str(error) or type(error).__name__, "transient": True}
    except Exception as error:
        answer = {"error": str(error) or repr(error), "transient": False}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    # Skips the destructors of libraries, which have nothing left to do.
    os._exit(0)


def _load(service: str, release_id: str, store: str, trusted_keys: str, cache: str) -> None:
    """Loads the part of a release that a service needs.

    Raises:
        ArtifactError: The release cannot be loaded.
        OSError: The store cannot be read, or the cache cannot be written to.
    """
    from marquee_core.service_names import CF, GATEWAY, INFERENCE
    from marquee_services.server.settings import open_store

    opened = open_store(store, trusted_keys)
    if service == GATEWAY:
        from marquee_services.gateway.releases.release import load_gateway_release

        load_gateway_release(opened, release_id, Path(cache))
        return
    from marquee_services.scoring.loading import load_engine

    if service == CF:
        from marquee_services.cf.models import CF_SCORERS as LOADERS
    elif service == INFERENCE:
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        from marquee_services.inference.models import INFERENCE_SCORERS as LOADERS
    else:
        raise ValueError(f"unknown service {service!r}")
    load_engine(opened, release_id, service, LOADERS, Path(cache))


def _be_killed_first() -> None:
    """If the container's memory runs out, the kernel ends this process and not the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    """Makes the kernel kill this process when its parent ends, however that ends."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
