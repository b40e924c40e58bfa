"""Users who call a gateway continuously, with a record of how each call ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

import marquee
from faults.fault_table import Calls

# Long enough for a heavily loaded machine.
CALL_TIMEOUT_S = 20.0
ANSWERED, DEGRADED, SHED, FAILED = "answered", "degraded", "shed", "failed"


class _Record(NamedTuple):
    begin: float
    end: float
    kind: str
    error: str


class Callers:
    """Threads that call Recommend until they are stopped.

    Every other call is for a visitor, so that its answer must be computed.
    """

    def __init__(
        self,
        address: str,
        users: Sequence[str],
        items: Sequence[str],
        count: int = 2,
        timeout_s: float = CALL_TIMEOUT_S,
        pause_s: float = 0.005,
        health_check: bool = False,
    ) -> None:
        """Prepares the threads; entering the context starts them.

        Args:
            address: The client's target.
            users: Ids of known users.
            items: Ids of the items that visitors rate.
            count: Number of threads.
            timeout_s: Deadline of each call in seconds.
            pause_s: Seconds between the calls of a thread.
            health_check: Whether the client checks the health of the gateways.
        """
        self._address = address
        self._users = users
        self._items = items
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._health_check = health_check
        self._stopped = threading.Event()
        self._records: list[_Record] = []
        self._threads = [
            threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def between(self, begin: float, end: float) -> Calls:
        """Summarises the calls that were in progress at any time between two times.

        Args:
            begin: The first time, as returned by `time.monotonic`.
            end: The last time, on the same clock.
        """
        found = Calls()
        for record in list(self._records):
            if record.end < begin or record.begin > end:
                continue
            if record.kind == FAILED:
                found.failed, found.error = found.failed + 1, record.error
            elif record.kind == SHED:
                found.shed += 1
            else:
                found.latencies_s.append(record.end - record.begin)
                found.degraded += record.kind == DEGRADED
        return found

    def recovered_after(self, moment: float) -> float:
        """Returns the seconds from a time to the end of the last failed or degraded call."""
        bad = (record.end for record in list(self._records) if record.kind in (FAILED, DEGRADED))
        return max(0.0, max(bad, default=moment) - moment)

    def _call(self, number: int) -> None:
        count = number
        with marquee.Client(
            self._address, timeout=self._timeout_s, health_check=self._health_check
        ) as client:
            while not self._stopped.is_set():
                count += 1
                begin = time.monotonic()
                kind, error = ANSWERED, ""
                try:
                    if count % 2:
                        answer = client.recommend(self._users[count % len(self._users)])
                    else:
                        rated = self._items[count % len(self._items)]
                        answer = client.recommend(ratings={rated: 1.0 + count % 5})
                except marquee.Overloaded as failure:
                    kind, error = SHED, repr(failure)
                except marquee.MarqueeError as failure:
                    kind, error = FAILED, repr(failure)
                else:
                    if answer.source.degraded or not len(answer):
                        kind = DEGRADED
                self._records.append(_Record(begin, time.monotonic(), kind, error))
                self._stopped.wait(self._pause_s)
