"""Counts the lists of each user of an experiment, without writing for every list.

Counts are kept in memory, and a thread writes them to the feedback log every few seconds. It writes
totals of this process, so repeating a write changes nothing. A killed process loses the counts
since its last write; this can be seen in the log, because its counter is not marked as closed.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice

import structlog
from prometheus_client import CollectorRegistry, Gauge

from marquee_core.experiments.experiment import Experiment
from marquee_core.feedback.events import ListCount, LogUnavailable, user_digest

_log = structlog.get_logger()

BATCH = 2_000
"""Most counts in one transaction, so that a write does not delay the recording of feedback."""

MAX_COUNTS = 200_000
"""Most users whose totals are in memory, about 40 MB. Once this is reached and all totals are
written, a new counter starts. While the log does not respond, lists of further users are not
counted, and `uncounted` is increased."""

HEARTBEAT_S = 20.0
"""Seconds after which a counter writes to the log even without new counts."""

_STOP_TIMEOUT_S = 5.0
_Key = tuple[str, int, bytes]

Write = Callable[[str, Sequence[ListCount], bool], None]
"""Writes counts to the log, given the counter's id, the counts, and whether it is closed."""


class ListCounter:
    """Counts lists by experiment, arm and user.

    Attributes:
        uncounted: The number of lists that were not counted because the memory was full.
    """

    def __init__(
        self,
        write: Write,
        interval: float,
        registry: CollectorRegistry,
        max_counts: int = MAX_COUNTS,
    ) -> None:
        """Creates a counter; `start` starts its thread.

        Args:
            write: Writes counts to the log; raises `LogUnavailable` if it cannot.
            interval: Seconds between writes.
            registry: Receives the metrics.
            max_counts: The most users whose totals are in memory.
        """
        self._write = write
        self._interval = interval
        self._max_counts = max_counts
        self._id = _new_id()
        self._totals: dict[_Key, int] = {}
        # The number of unwritten lists by key, in the order in which the keys changed.
        self._pending: dict[_Key, int] = {}
        self._lock = threading.Lock()
        self._is_open = False
        self._is_failing = False
        self._written_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="list-counter", daemon=True)
        self.uncounted = 0
        pending = Gauge(
            "marquee_experiment_pending_lists",
            "Number of lists whose counts have not been written to the feedback log yet.",
            registry=registry,
        )
        pending.set_function(lambda: self.pending)
        uncounted = Gauge(
            "marquee_experiment_uncounted_lists",
            "Number of lists that were not counted because the memory for counts was full.",
            registry=registry,
        )
        uncounted.set_function(lambda: self.uncounted)

    @property
    def pending(self) -> int:
        """The number of lists whose counts have not been written yet."""
        with self._lock:
            return sum(self._pending.values())

    def count(self, experiment: Experiment, arm: int, user_id: str) -> None:
        """Counts a list, without waiting for the log."""
        key = experiment.experiment_id, arm, user_digest(user_id)
        with self._lock:
            if key not in self._totals and len(self._totals) >= self._max_counts:
                self.uncounted += 1
                return
            self._totals[key] = self._totals.get(key, 0) + 1
            self._pending[key] = self._pending.get(key, 0) + 1

    def forget(self, digest: bytes) -> None:
        """Drops the counts of a forgotten user.

        Args:
            digest: The `user_digest` of the user's id.
        """
        with self._lock:
            for counts in (self._totals, self._pending):
                for key in [key for key in counts if key[2] == digest]:
                    del counts[key]

    def start(self) -> None:
        """Starts the thread that writes."""
        self._thread.start()

    def stop(self) -> None:
        """Writes the remaining counts and closes the counter; waits a few seconds at most."""
        self._stopped.set()
        self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._flush()
        self._flush(close=True)

    def _flush(self, close: bool = False) -> None:
        """Writes all pending counts in batches; counts that cannot be written stay pending."""
        while True:
            with self._lock:
                keys = list(islice(self._pending, BATCH))
                counts = [ListCount(*key, self._totals[key]) for key in keys]
                written = {key: self._pending[key] for key in keys}
            is_last = len(keys) < BATCH
            is_due = close or time.monotonic() >= self._written_at + HEARTBEAT_S
            if not keys and not (self._is_open and is_due):
                break
            try:
                self._write(self._id, counts, close and is_last)
            except LogUnavailable as error:
                if not self._is_failing:
                    _log.warning("list_counts_not_written", error=str(error), lists=self.pending)
                self._is_failing = True
                return
            except Exception:
                # A defect must not end the thread; the metric shows the pending lists.
                _log.exception("list_counts_failed")
                return
            if self._is_failing:
                _log.info("list_counts_written")
            self._is_failing, self._is_open = False, True
            self._written_at = time.monotonic()
            self._subtract(written)
            if is_last:
                break
        self._start_new_counter()

    def _subtract(self, written: dict[_Key, int]) -> None:
        """Subtracts written lists from the pending ones, which may have increased since."""
        with self._lock:
            for key, lists in written.items():
                left = self._pending.pop(key, 0) - lists
                if left > 0:
                    self._pending[key] = left

    def _start_new_counter(self) -> None:
        """Starts a new counter if the memory is full and everything is written."""
        with self._lock:
            if len(self._totals) < self._max_counts or self._pending:
                return
            finished, self._id = self._id, _new_id()
            self._totals.clear()
            self._is_open = False
        try:
            self._write(finished, (), True)
        except LogUnavailable as error:
            _log.warning("list_counter_not_closed", error=str(error))


def _new_id() -> str:
    return secrets.token_hex(8)
