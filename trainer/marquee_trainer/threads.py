"""Work on blocks of rows, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def by_blocks(work: Callable[[int, int], T], rows: int, size: int) -> list[T]:
    """Does work on blocks of rows, as many at once as there are cores.

    Args:
        work: Takes the first row and the one after the last; gains by threads as far as it
            releases the interpreter's lock.
        rows: How many rows there are.
        size: Of a block, in rows.

    Returns:
        What the work returned, in the order of the rows.
    """
    with ThreadPoolExecutor(usable_cores()) as threads:
        firsts = range(0, rows, size)
        return list(threads.map(lambda first: work(first, min(first + size, rows)), firsts))


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
