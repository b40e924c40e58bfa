"""How long calls take without load, which is what latencies under load are compared with."""

from __future__ import annotations

from collections import deque

# Of so many latencies the second largest is the 99th percentile.
_SAMPLES = 128
_QUANTILE = 0.99
# With fewer, twice the least mean latency of a window takes the place of the percentile.
_FEWEST_SAMPLES = 16
_SPREAD, _WIDEST_SPREAD = 2.0, 4.0
_SHORTEST_S = 1e-6


class UnloadedLatency:
    """The 99th percentile of the latencies of one class of calls when few are in progress.

    A percentile and not the mean, because its ratio to the mean depends on the machine: where other
    processes claim the processor, single calls take many times the mean, with load or without. But
    stalls must not make long queues seem normal, so it counts as a few times the mean at most.

    Attributes:
        seconds: The percentile in seconds; 0 until a call has been measured.
    """

    def __init__(self) -> None:
        """Has measured nothing."""
        self.seconds = 0.0
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._least_mean_s = 0.0

    def add(self, seconds: float) -> None:
        """Takes the latency of a call beside which hardly any others were in progress."""
        self._samples.append(seconds)

    def end_window(self, mean_s: float, forget: float) -> None:
        """Takes the mean latency of a window of calls, whatever the load.

        Args:
            mean_s: The mean in seconds.
            forget: The share by which the least mean is forgotten.
        """
        mean_s = max(mean_s, _SHORTEST_S)
        self._least_mean_s = min(self._least_mean_s * (1 + forget) or mean_s, mean_s)
        if len(self._samples) >= _FEWEST_SAMPLES:
            ordered = sorted(self._samples)
            widest = _WIDEST_SPREAD * sum(ordered) / len(ordered)
            self.seconds = max(min(ordered[int(_QUANTILE * len(ordered)) - 1], widest), _SHORTEST_S)
        else:
            self.seconds = _SPREAD * self._least_mean_s
