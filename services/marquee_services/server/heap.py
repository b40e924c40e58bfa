"""Keeps the heap of a process of many threads small."""

from __future__ import annotations

import ctypes

# Of the GNU allocator's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_ARENAS = 2
_MAPPED_BYTES = 256 * 1024


def keep_heap_small() -> None:
    """Lets threads share arenas, and gives large blocks back to the system as they are freed.

    Otherwise each thread of gRPC and of ours has an arena of its own, and the first large block
    that is freed makes all later ones part of it: what a burst of scores took stays for good. To
    be called before there are threads; without the GNU allocator nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
