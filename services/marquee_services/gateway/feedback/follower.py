"""Follows the feedback log in a thread of its own, so that answers never wait for the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from marquee_core.feedback.events import LogUnavailable
from marquee_core.feedback.log import READ_PAGE, EventLog
from marquee_core.redaction import redact
from marquee_services.gateway.feedback.fresh import FreshFeedback

_log = structlog.get_logger()

# Seconds between two attempts while the database does not answer.
_RETRY_S = 0.5
# Seconds between two checks that the log was not replaced.
_CHECK_S = 1.0
_STOP_TIMEOUT_S = 5.0


class LastError(NamedTuple):
    """The most recent error of a read.

    Attributes:
        text: The error; "" if there was none.
        at: When it occurred, as an RFC 3339 timestamp; "" if there was none.
    """

    text: str = ""
    at: str = ""


class FeedbackFollower:
    """Reads new entries of the log into memory, as often as `interval` says and after each write.

    If the database does not answer, the feedback that is known stays in use.

    Attributes:
        healthy: Whether the most recent read succeeded.
        last_error: The most recent error of a read.
    """

    def __init__(
        self,
        log: EventLog,
        fresh: FreshFeedback,
        interval: float,
        cut: Callable[[], int | None],
    ) -> None:
        """Creates a follower; `start` starts its thread.

        Args:
            log: The log.
            fresh: Receives the entries.
            interval: Seconds between two reads.
            cut: The lowest position up to which a loaded release knows the log; None while no
                release is loaded. The log is read from there.
        """
        self._log = log
        self._fresh = fresh
        self._interval = interval
        self._cut = cut
        self._complete_from: int | None = None
        self._caught_up_at: float | None = None
        self._next_check = 0.0
        self._stopped = False
        self._wake = threading.Event()
        # A daemon: a database that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._follow, name="feedback-follower", daemon=True)
        self.healthy = False
        self.last_error = LastError()

    @property
    def lag(self) -> float | None:
        """Seconds since the end of the log was last reached; None if it never was."""
        at = self._caught_up_at
        return None if at is None else time.monotonic() - at

    @property
    def ready(self) -> bool:
        """Whether all there is to read was read once, or the database did not answer.

        A gateway that starts waits for this, so that its answers do not miss feedback that other
        gateways use.
        """
        return self._caught_up_at is not None or bool(self.last_error.text)

    def start(self) -> None:
        """Starts to follow the log."""
        self._thread.start()

    def wake(self) -> None:
        """Reads the log now. May be called by any thread."""
        self._wake.set()

    def stop(self) -> None:
        """Ends the thread; waits a few seconds at most if the database hangs."""
        self._stopped = True
        self._wake.set()
        self._thread.join(_STOP_TIMEOUT_S)

    def _follow(self) -> None:
        while not self._stopped:
            wait = self._interval
            try:
                cut = self._cut()
                if cut is not None:
                    self._poll(cut)
            except LogUnavailable as error:
                self._record(str(error))
                wait = max(self._interval, _RETRY_S)
            except Exception as error:
                # A defect must not end the thread: the gateway would silently stop to follow.
                _log.exception("feedback_follower_failed")
                self._record(repr(error))
                wait = max(self._interval, _RETRY_S)
            self._wake.wait(wait)
            self._wake.clear()

    def _record(self, text: str) -> None:
        text = redact(text)
        if self.healthy or not self.last_error.text:
            _log.warning("feedback_log_unavailable", log=self._log.name, error=text)
        self.healthy = False
        self.last_error = LastError(text, datetime.now(UTC).isoformat(timespec="seconds"))

    def _poll(self, cut: int) -> None:
        """Reads to the end of the log."""
        fresh = self._fresh
        if self._complete_from is None or cut > self._complete_from:
            fresh.drop_through(cut)
        elif cut < self._complete_from:
            # An older release came back, which does not know what happened since it was trained.
            fresh.apply(self._log.entries(cut, self._complete_from))
        self._complete_from = cut
        while True:
            started = time.monotonic()
            entries = self._log.read(fresh.position, READ_PAGE)
            fresh.apply(entries)
            if len(entries) < READ_PAGE or self._stopped:
                break
        if started >= self._next_check and self._went_back(cut):
            _log.warning("feedback_log_went_back", log=self._log.name, position=fresh.position)
            fresh.clear()
            fresh.position = cut
        if not self.healthy:
            _log.info("feedback_log_followed", log=self._log.name, position=fresh.position)
        self.healthy = True
        self._caught_up_at = started

    def _went_back(self, cut: int) -> bool:
        """Whether the log ends before what was read: it was replaced, or restored from a backup."""
        self._next_check = time.monotonic() + _CHECK_S
        return self._log.position() < self._fresh.position > cut
