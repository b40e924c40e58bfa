"""Circuit breakers: a replica that is much slower than the others, or fails, gets no calls.

The states are those of Nygard, "Release It!" (2018), and what opens a circuit is the outlier
detection of Envoy (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier),
by latency as well as by failures:

- *closed*: the replica is called. When several of its last calls were late or failed, and those
  of another replica were not, the circuit opens. Where all replicas are slow, none is an outlier.
- *open*: the replica is not called, and calls that wait for it are sent elsewhere. After a pause,
  which doubles each time up to half a minute, the circuit is half-open.
- *half-open*: single calls are sent to this replica as well as to another one, so nobody waits for
  the trial. After a few in time the circuit closes; after one that is late or fails it is open
  again.
"""

from __future__ import annotations

import math
from collections import deque

# A circuit opens when so many of the last calls were bad. Calls longer ago do not count.
_WINDOW_CALLS = 10
_WINDOW_S = 10.0
_BAD_CALLS = 3
# Another replica is well if at most so many of its last calls were bad.
_BAD_CALLS_OF_THE_WELL = 1
# The first pause in seconds, and the longest. A circuit that has been closed for as long as the
# longest pause begins with the first one again.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# A half-open circuit closes after so many trials in time.
_GOOD_TRIALS = 3


class Circuit:
    """The circuit breaker of one replica; see the module's description.

    Attributes:
        is_open: Whether the replica is not to be called, other than on trial.
        trips: How often the circuit has opened.
    """

    def __init__(self) -> None:
        """Creates a closed circuit."""
        self.is_open = False
        self.trips = 0
        self._calls: deque[tuple[float, bool]] = deque(maxlen=_WINDOW_CALLS)
        self._pause_s = _FIRST_PAUSE_S
        self._next_trial_at = math.inf
        self._closed_at = -math.inf
        self._good_trials = 0

    def record(self, is_bad: bool, now: float) -> None:
        """Counts a call.

        Args:
            is_bad: Whether it was late or failed.
            now: The present time in seconds.
        """
        self._calls.append((now, is_bad))

    def is_ailing(self, now: float) -> bool:
        """Returns whether enough of the last calls were bad to open the circuit.

        Args:
            now: The present time in seconds.
        """
        return self._bad_calls(now) >= _BAD_CALLS

    def is_well(self, now: float) -> bool:
        """Returns whether the replica can take the place of an ailing one.

        Args:
            now: The present time in seconds.
        """
        return not self.is_open and self._bad_calls(now) <= _BAD_CALLS_OF_THE_WELL

    def open(self, now: float) -> None:
        """Opens the circuit.

        Args:
            now: The present time in seconds.
        """
        if now - self._closed_at > _LONGEST_PAUSE_S:
            self._pause_s = _FIRST_PAUSE_S
        self.is_open = True
        self.trips += 1
        self._pause(now)

    def begin_trial(self, now: float) -> bool:
        """Returns whether a call should be sent to the replica on trial; only one is at a time.

        Args:
            now: The present time in seconds.
        """
        if not self.is_open or now < self._next_trial_at:
            return False
        self._next_trial_at = math.inf
        return True

    def end_trial(self, is_good: bool, now: float) -> None:
        """Judges the replica by a trial.

        Args:
            is_good: Whether the call was answered in time.
            now: The present time in seconds.
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
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _bad_calls(self, now: float) -> int:
        return sum(is_bad for at, is_bad in self._calls if now - at <= _WINDOW_S)
