"""Shows the progress of a run, with an estimate of the remaining time."""

from __future__ import annotations

import time
from collections import deque
from typing import TextIO

from marquee_services.lists.run import Progress

# The intervals at which the line is redrawn on a terminal, and repeated in a log.
_REDRAW_S, _LOG_S = 0.2, 30.0
# The rate is measured over a sliding window, because an overall average lags behind when a machine
# becomes busy. No rate is shown before the shorter time.
_WINDOW_S, _FIRST_S = 60.0, 3.0


class ListProgress:
    """Writes a line with the number of finished users.

    The rate and the remaining time are based on users that this run computes, because existing
    parts take no time.

    Attributes:
        parts: The number of finished parts, as text.
    """

    def __init__(self, stream: TextIO) -> None:
        """Creates a progress line on a stream."""
        self.parts = "no part is"
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._samples: deque[tuple[float, int]] = deque()
        self._drawn = time.monotonic()
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        """Updates the progress, and redraws the line when that is due."""
        verb = "part is" if progress.total_parts == 1 else "parts are"
        self.parts = f"{progress.parts} of {progress.total_parts} {verb}"
        now = time.monotonic()
        self._samples.append((now, progress.computed))
        while now - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()
        if now - self._drawn < (_REDRAW_S if self._is_terminal else _LOG_S):
            return
        self._drawn = now
        line = self._line(progress)
        if self._is_terminal:
            self._stream.write(f"\r{line:<{self._width}}")
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def end(self) -> None:
        """Removes the line from a terminal."""
        if self._width:
            self._stream.write(f"\r{'':<{self._width}}\r")
            self._stream.flush()
            self._width = 0

    def _line(self, progress: Progress) -> str:
        done = progress.computed + progress.reused
        text = f"{done:,} of {progress.users:,} users"
        (first, before), (last, computed) = self._samples[0], self._samples[-1]
        if last - first < _FIRST_S or computed <= before:
            return text
        rate = (computed - before) / (last - first)
        left = _duration((progress.users - done) / rate)
        return f"{text}, {rate:,.0f} per second, about {left} left"


def _duration(seconds: float) -> str:
    """Returns a rounded duration as text."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
