"""Divides long work on the event loop into short turns."""

from __future__ import annotations

import asyncio
import time

# Every call takes about ten turns of the event loop, and waits this long for each of them.
_SLICE_S = 0.001


class TimeSlice:
    """Measures how long some work has held the event loop, and lets other tasks run in between."""

    def __init__(self) -> None:
        """Starts the first turn."""
        self._start = time.perf_counter()

    @property
    def is_over(self) -> bool:
        """Whether the work has held the event loop for so long that others should have a turn."""
        return time.perf_counter() - self._start > _SLICE_S

    async def give_way(self) -> None:
        """Lets other tasks run if the turn is over; must be called after each short step."""
        if self.is_over:
            await asyncio.sleep(0)
            self.restart()

    def restart(self) -> None:
        """Starts the next turn, after other tasks have run."""
        self._start = time.perf_counter()
