"""Limits the memory that a server keeps, and the time that it spends on garbage.

The functions for the C allocator use that of the GNU C library. With another one they change
nothing.
"""

from __future__ import annotations

import ctypes
import gc

# Options of `mallopt`, from the GNU C library's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MAX_ARENAS = 2
_MMAP_THRESHOLD_BYTES = 256 * 1024
# Python looks for cycles among new objects once there are so many more of them. By default it does
# after 700, several times in each batch of answers, whose objects are all freed without it.
_YOUNG_OBJECTS = 10_000


def limit_arenas() -> None:
    """Limits the number of the allocator's arenas, so that threads share them.

    By default each thread (of gRPC, of TensorFlow, of ours) gets its own arena, and an arena keeps
    the memory that its thread has freed. Call this before any thread starts.
    """
    _set_option(_M_ARENA_MAX, _MAX_ARENAS)


def keep_heap_small() -> None:
    """Limits arenas, and returns large blocks to the operating system as soon as they are freed.

    By default the allocator raises its mmap threshold when a large block is freed, and serves
    later blocks of that size from the heap, where they stay after a burst of requests. Do not call
    this in a process that computes with large arrays: each would need freshly mapped pages, which
    is slow. Call it before any thread starts.
    """
    limit_arenas()
    _set_option(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def collect_rarely() -> None:
    """Lets Python look for reference cycles less often; that took 7 % of a gateway's time."""
    _, *older = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS, *older)


def return_free_memory() -> None:
    """Collects garbage and returns free memory to the operating system.

    Imports and the loading of a release free much memory, which the allocator would keep. What is
    left then stays for long, so later collections do not look at it, until the next call of this
    function.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_option(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)
