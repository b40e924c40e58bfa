"""Limits the memory that the C allocator keeps in a process with many threads.

These functions use the GNU C library's allocator. With another allocator they change nothing.
"""

from __future__ import annotations

import ctypes
import gc

# Options of `mallopt`, from the GNU C library's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MAX_ARENAS = 2
_MMAP_THRESHOLD_BYTES = 256 * 1024


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


def return_free_memory() -> None:
    """Collects garbage and returns free memory to the operating system.

    Imports and the loading of a release free much memory, which the allocator would keep.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_option(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)
