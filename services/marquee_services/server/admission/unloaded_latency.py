"""The latencies of calls of a class: in a window, and without load for comparison."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

# The second largest of this many latencies is their 99th percentile.
_SAMPLES = 128
_QUANTILE = 0.99
# With fewer samples than this, twice the least mean latency of a window is used instead.
_MIN_SAMPLES = 16
_SPREAD, _WIDEST_SPREAD = 2.0, 4.0
_SHORTEST_S = 1e-6


class UnloadedLatency:
    """The 99th percentile of the latencies of a class of calls while few are in progress.

    The percentile is used because its ratio to the mean depends on the machine: where other
    processes compete for the CPU, single calls take many times the mean, with or without load. It
    is limited to a few times the mean, so that stalls do not make long queues seem normal.

    Attributes:
        seconds: The percentile in seconds; 0 until a call has been measured.
    """

    def __init__(self) -> None:
        """Starts without measurements."""
        self.seconds = 0.0
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._least_mean_s = 0.0

    def add(self, seconds: float) -> None:
        """Adds the latency of a call during which hardly any others were in progress."""
        self._samples.append(seconds)

    def end_window(self, mean_s: float, forget: float) -> None:
        """Updates the percentile at the end of a window of calls, under any load.

        Args:
            mean_s: The mean latency of the window in seconds.
            forget: The share by which the least mean is raised before the comparison.
        """
        mean_s = max(mean_s, _SHORTEST_S)
        self._least_mean_s = min(self._least_mean_s * (1 + forget) or mean_s, mean_s)
        if len(self._samples) >= _MIN_SAMPLES:
            ordered = sorted(self._samples)
            widest = _WIDEST_SPREAD * sum(ordered) / len(ordered)
            self.seconds = max(min(ordered[int(_QUANTILE * len(ordered)) - 1], widest), _SHORTEST_S)
        else:
            self.seconds = _SPREAD * self._least_mean_s


@dataclass
class ClassLatency:
    """The latencies of a class of calls.

    Attributes:
        unloaded: The latency without load.
        total_s: The sum of the latencies in this window, in seconds.
        calls: The number of calls in this window.
    """

    unloaded: UnloadedLatency = field(default_factory=UnloadedLatency)
    total_s: float = 0.0
    calls: int = 0
