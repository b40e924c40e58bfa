"""Memory that a burst of work frees is returned to the operating system."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from marquee_services.server.heap import return_free_memory

_BURST = """
from threading import Barrier, Thread
from pathlib import Path
from marquee_services.server.heap import keep_heap_small

keep_heap_small()

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

before = anonymous()
barrier = Barrier(8)

def work():
    held = []
    for _ in range(8):
        # A small block after each large one keeps the heap from shrinking.
        held.append((bytes(2_000_000), bytes(1_000)))
    held = [small for _, small in held]
    barrier.wait()
    bytes(2_000_000)
    small_ones.append(held)
    barrier.wait()

small_ones = []
threads = [Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_blocks_of_threads_are_returned_to_the_system() -> None:
    """Eight threads free 128 MB and keep less than 4 MB; by default they would keep 14 MB."""
    run = subprocess.run([sys.executable, "-c", _BURST], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 4_000  # KiB


class _Node:
    """Refers to itself, so that only the garbage collector frees it."""

    def __init__(self) -> None:
        self.me = self


def test_only_imported_objects_are_excluded_from_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is created after the first call, such as a release, is collected by the next one."""
    monkeypatch.setattr("marquee_services.server.heap._is_frozen", False)
    try:
        return_free_memory()
        excluded = gc.get_freeze_count()
        assert excluded
        node = _Node()
        dead = weakref.ref(node)
        return_free_memory()
        assert dead() is not None
        assert gc.get_freeze_count() <= excluded  # Excluded objects may be freed.
        del node
        return_free_memory()
        assert dead() is None
    finally:
        gc.unfreeze()
