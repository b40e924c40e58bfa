"""Limits the free memory that a server keeps, and the time that it spends on garbage collection.

The functions for the C allocator apply to the GNU C library, and have no effect with another one.
"""

from __future__ import annotations

import ctypes
import gc

# Options of `mallopt`, from the GNU C library's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MAX_ARENAS = 2
_MMAP_THRESHOLD_BYTES = 256 * 1024
# Python looks for reference cycles after this many new objects. By default it does so after 700,
# which is several times per batch of answers, although none of their objects are in cycles.
_YOUNG_OBJECTS = 10_000
_is_frozen = False


def limit_arenas() -> None:
    """Limits the number of the allocator's arenas, so that threads share them.

    By default each thread of gRPC, TensorFlow or the server gets its own arena, and an arena keeps
    the memory that its thread has freed. Must be called before any thread starts.
    """
    _set_option(_M_ARENA_MAX, _MAX_ARENAS)


def keep_heap_small() -> None:
    """Limits arenas, and returns large blocks to the operating system as soon as they are freed.

    By default the allocator raises its mmap threshold when a large block is freed, and allocates
    later blocks of that size on the heap, which keeps the memory after a burst of requests. Not
    suitable for a process that computes with large arrays: each would need freshly mapped pages,
    which is slow. Must be called before any thread starts.
    """
    limit_arenas()
    _set_option(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def collect_rarely() -> None:
    """Makes Python look for reference cycles less often; they took 7 % of a gateway's CPU time."""
    _, *older = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS, *older)


def return_free_memory() -> None:
    """Collects garbage and returns free memory to the operating system.

    Importing modules and loading a release free a lot of memory, which the allocator would keep.
    A collection stops all threads. The first one examines everything that was imported, which takes
    tens of milliseconds; those objects are excluded from all later ones, so that replacing a
    release does not delay calls.
    """
    global _is_frozen
    gc.collect()
    # `gc.get_freeze_count` counts the objects one by one, which takes ten milliseconds.
    if not _is_frozen:
        gc.freeze()
        _is_frozen = True
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_option(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)
