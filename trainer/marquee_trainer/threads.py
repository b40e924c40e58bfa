"""Runs work on blocks of rows in parallel, on all available cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from marquee_trainer.cores import usable_cores

T = TypeVar("T")


def map_blocks(work: Callable[[int, int], T], row_count: int, block_size: int) -> list[T]:
    """Calls a function on consecutive blocks of rows, with one thread per available core.

    Threads speed the work up only while the function has released the global interpreter lock, as
    NumPy and compiled code do.

    Args:
        work: Called with the first row of a block and the row after its last.
        row_count: Total number of rows.
        block_size: Rows per block; the last block may be smaller.

    Returns:
        The results of `work`, one per block, in the order of the rows.
    """
    with ThreadPoolExecutor(usable_cores()) as threads:
        starts = range(0, row_count, block_size)
        return list(
            threads.map(lambda start: work(start, min(start + block_size, row_count)), starts)
        )
