"""Circuit breakers: a replica that is much slower than the others, or fails, gets no calls.

The states are those of Nygard, "Release It!" (2018). A circuit opens by outlier detection as in
Envoy (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier), based on
both latency and failures:

- *closed*: the replica is called. If several of its last calls were late or failed, and those of
  another replica were not, the circuit opens. If all replicas are slow, none is an outlier.
- *open*: the replica is not called, and calls that wait for it are sent to another one. After a
  pause, which doubles each time up to half a minute, the circuit becomes half-open.
- *half-open*: single calls are sent both to this replica and to another one, so that no caller
  waits for the trial. After a few trials in time the circuit closes; after one that is late or
  fails, it is open again.
"""

from __future__ import annotations

import math
from collections import deque

# A circuit opens when this many of the last calls within the window were bad.
_WINDOW_CALLS = 10
_WINDOW_S = 10.0
_BAD_CALLS = 3
# Another replica is healthy if at most this many of its last calls were bad.
_MAX_BAD_CALLS_IF_HEALTHY = 1
# The first and the longest pause in seconds. A circuit that has been closed for longer than the
# longest pause starts with the first pause again.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
# A half-open circuit closes after this many trials in time.
_GOOD_TRIALS = 3


class Circuit:
    """The circuit breaker of a replica; see the module's docstring.

    Attributes:
        is_open: Whether the replica must not be called, except on trial.
    """

    def __init__(self) -> None:
        """Creates a closed circuit."""
        self.is_open = False
        self._calls: deque[tuple[float, bool]] = deque(maxlen=_WINDOW_CALLS)
        self._pause_s = _FIRST_PAUSE_S
        self._next_trial_at = math.inf
        self._closed_at = -math.inf
        self._good_trials = 0

    def record(self, is_bad: bool, now: float) -> None:
        """Records a call.

        Args:
            is_bad: Whether the call was late or failed.
            now: The current time in seconds.
        """
        self._calls.append((now, is_bad))

    def fails_often(self, now: float) -> bool:
        """Returns whether enough of the last calls were bad to open the circuit.

        Args:
            now: The current time in seconds.
        """
        return self._bad_calls(now) >= _BAD_CALLS

    def is_healthy(self, now: float) -> bool:
        """Returns whether the replica can replace one whose calls often fail.

        Args:
            now: The current time in seconds.
        """
        return not self.is_open and self._bad_calls(now) <= _MAX_BAD_CALLS_IF_HEALTHY

    def open(self, now: float) -> None:
        """Opens the circuit.

        Args:
            now: The current time in seconds.
        """
        if now - self._closed_at > _MAX_PAUSE_S:
            self._pause_s = _FIRST_PAUSE_S
        self.is_open = True
        self._pause(now)

    def begin_trial(self, now: float) -> bool:
        """Returns whether to send a call on trial; there is only one trial at a time.

        Args:
            now: The current time in seconds.
        """
        if not self.is_open or now < self._next_trial_at:
            return False
        self._next_trial_at = math.inf
        return True

    def end_trial(self, is_good: bool, now: float) -> None:
        """Records the result of a trial.

        Args:
            is_good: Whether the call was answered in time.
            now: The current time in seconds.
        """
        if not is_good:
            self._pause(now)
            return
        self._good_trials += 1
        self._next_trial_at = now
        if self._good_trials >= _GOOD_TRIALS:
            self.is_open = False
            self._closed_at = now
            self._calls.clear()

    def _pause(self, now: float) -> None:
        self._good_trials = 0
        self._next_trial_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)

    def _bad_calls(self, now: float) -> int:
        return sum(is_bad for at, is_bad in self._calls if now - at <= _WINDOW_S)
