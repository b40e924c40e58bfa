"""Gives memory back to the system that a process no longer needs."""

from __future__ import annotations

import ctypes
import gc


def return_free_memory() -> None:
    """Collects garbage and returns free heap to the system.

    Imports and the loading of a release leave much of it; the GNU allocator keeps it otherwise.
    Without that allocator nothing is returned.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
