"""Keeps the heap of a process of many threads small."""

from __future__ import annotations

import ctypes
import gc

# Of the GNU allocator's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_ARENAS = 2
_MAPPED_BYTES = 256 * 1024


def share_arenas() -> None:
    """Lets threads share arenas.

    Otherwise each thread of gRPC, of TensorFlow and of ours has one of its own, which keeps what
    it once took. To be called before there are threads; without the GNU allocator nothing changes.
    """
    _set(_M_ARENA_MAX, _ARENAS)


def keep_heap_small() -> None:
    """Shares arenas, and gives large blocks back to the system as they are freed.

    Otherwise the first large block that is freed makes all later ones part of the heap: what a
    burst of scores took stays for good. Not for processes that compute with large arrays, to
    which new pages for each would be dear. When to call it, see `share_arenas`.
    """
    share_arenas()
    _set(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def return_free_memory() -> None:
    """Collects garbage and returns free heap to the system.

    Imports and the loading of a release leave much of it; the GNU allocator keeps it otherwise.
    Without that allocator nothing is returned.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)
