"""Processes that change a release store concurrently."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Mapping, Sequence

from marquee_core.release.store import ReleaseStore

_WAIT_S = 200
_PROMOTE = """
import sys
from marquee_core.release.store import ReleaseStore
for _ in range(int(sys.argv[3])):
    ReleaseStore(sys.argv[1]).promote(sys.argv[2])
"""
_COUNT = """
import sys
from marquee_core.release.storage import Storage
for _ in range(int(sys.argv[2])):
    Storage(sys.argv[1]).update("count", lambda old: str(int(old or b"0") + 1).encode())
"""


def promote_concurrently(
    python: str, url: str, release_ids: Sequence[str], rounds: int, env: Mapping[str, str]
) -> None:
    """Run one process per release, each of which promotes its release repeatedly."""
    _run_all([[python, "-c", _PROMOTE, url, name, str(rounds)] for name in release_ids], env)


def count_concurrently(python: str, url: str, rounds: int, env: Mapping[str, str]) -> None:
    """Run three processes that increment the number in the file `count`."""
    _run_all([[python, "-c", _COUNT, url, str(rounds)]] * 3, env)


def check_history(store: ReleaseStore, count: int) -> None:
    """Check that each change follows from the previous one, and that none is missing."""
    changes = store.pointer.audit()[::-1]
    assert [state.change.number for state in changes] == list(range(1, count + 1))
    for before, after in itertools.pairwise(changes):
        assert after.change.previous_id == before.release_id
        same = after.release_id == before.release_id
        expected = before.history if same else (before.release_id, *before.history)
        assert after.history == expected
    assert store.production() == changes[-1]


def _run_all(commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
    processes = [subprocess.Popen(command, env=dict(env)) for command in commands]
    assert [process.wait(timeout=_WAIT_S) for process in processes] == [0] * len(commands)
