"""The number of threads of a process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# gRPC starts further threads of this pool while all of them are busy, and ends them once idle.
_VARYING_POOL = "event_engine"


def thread_count(pid: int) -> int:
    """Count a process's threads, except those of a pool of gRPC whose size varies."""
    names = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # The thread has ended.
            names.append((task / "comm").read_text().strip())
    return len(names) - names.count(_VARYING_POOL)
