"""Follows the feedback log in a separate thread, so that answers never wait for the database."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from marquee_core.feedback.events import LogEntry, LogUnavailable
from marquee_core.feedback.log import READ_PAGE, EventLog
from marquee_core.redaction import redact
from marquee_core.release.manifest import Manifest
from marquee_services.gateway.feedback.fresh import FreshFeedback

_log = structlog.get_logger()

# Seconds between attempts while the database does not respond.
_RETRY_S = 0.5
# Seconds between checks that the log has not been replaced.
_CHECK_S = 1.0
# The log is identified by this many of the entries that were read last.
_TAIL_LENGTH = 8
# Most transactions of this process that are queued for the follower; further ones are read from
# the log.
_MAX_WRITTEN = 16
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
    """Reads new entries of the log into memory periodically.

    Entries that this process writes are applied immediately; if other processes wrote in between,
    the log is read immediately. If the database does not respond, the feedback in memory stays in
    use.

    Attributes:
        healthy: Whether the most recent read succeeded.
        last_error: The most recent error of a read.
    """

    def __init__(
        self,
        log: EventLog,
        fresh: FreshFeedback,
        interval: float,
    ) -> None:
        """Creates a follower; `start` starts its thread.

        Args:
            log: The log.
            fresh: Receives the entries.
            interval: Seconds between reads.
        """
        self._log = log
        self._fresh = fresh
        self._interval = interval
        self._lock = threading.Lock()
        # `_lock` guards the next two fields: the event loop sets the first and reads the second.
        self._manifests: Sequence[Manifest] = ()
        self._complete_from: int | None = None
        self._checked_marks: frozenset[str] = frozenset()
        self._reported: set[str] = set()
        # Positions of the entries that were read last, and when the log received them.
        self._tail: deque[tuple[int, int]] = deque(maxlen=_TAIL_LENGTH)
        self._caught_up_at: float | None = None
        self._next_check = self._next_read = 0.0
        self._written: deque[Sequence[LogEntry]] = deque(maxlen=_MAX_WRITTEN)
        self._stopped = False
        self._wake = threading.Event()
        # A daemon thread: a hanging database must not keep the process from exiting.
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
        """Whether the end of the log has been reached once, or a read has failed.

        A gateway waits for this before it serves, so that its answers include the feedback that
        other gateways use.
        """
        return self._caught_up_at is not None or bool(self.last_error.text)

    def set_releases(self, manifests: Sequence[Manifest]) -> None:
        """Sets the releases that may answer; the log is read from the mark of the oldest one.

        Args:
            manifests: The manifests of the releases; while there are none, nothing is read.
        """
        with self._lock:
            is_new = any(manifest not in self._manifests for manifest in manifests)
            self._manifests = tuple(manifests)
        if is_new:
            self.wake()

    def has_read_for(self, manifest: Manifest) -> bool:
        """Returns whether a release may answer: its feedback is read, or the log is unavailable.

        The result is True once all feedback since the release's training has been read, and while
        the most recent read has failed, because releases must not wait for the database. If the
        gateway returns to an older release, the result is False until the feedback that was dropped
        because newer releases include it has been reread.
        """
        if not self.healthy and self.last_error.text:
            return True
        with self._lock:
            start = self._complete_from
            return (
                manifest in self._manifests
                and start is not None
                and start <= self._fresh.known_to(manifest)
            )

    def start(self) -> None:
        """Starts to follow the log."""
        self._thread.start()

    def wake(self) -> None:
        """Makes the follower read the log now. Thread-safe."""
        self._next_read = 0.0
        self._wake.set()

    def queue_written(self, entries: Sequence[LogEntry]) -> None:
        """Queues the entries that this process wrote in a transaction. Thread-safe.

        Args:
            entries: The entries in the order of the log; empty to read the log now.
        """
        if not entries:
            self.wake()
            return
        self._written.append(entries)
        self._wake.set()

    def stop(self) -> None:
        """Stops the thread; waits a few seconds at most if the database hangs."""
        self._stopped = True
        self._wake.set()
        self._thread.join(_STOP_TIMEOUT_S)

    def _follow(self) -> None:
        while not self._stopped:
            wait = self._interval
            try:
                if self._manifests:
                    self._poll()
            except LogUnavailable as error:
                self._record(str(error))
                wait = max(self._interval, _RETRY_S)
            except Exception as error:
                # A defect must not end the thread: the gateway would silently stop following.
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

    def _poll(self) -> None:
        """Applies what this process wrote, and reads to the end of the log when a read is due."""
        fresh = self._fresh
        self._check_log()
        self._move_start()
        if self._apply_written() and time.monotonic() < self._next_read:
            return
        self._next_read = time.monotonic() + self._interval
        while True:
            started = time.monotonic()
            entries = self._log.read(fresh.position, READ_PAGE)
            self._apply(entries)
            if len(entries) < READ_PAGE or self._stopped:
                break
        if not self.healthy:
            _log.info("feedback_log_followed", log=self._log.name, position=fresh.position)
        self.healthy = True
        self._caught_up_at = started

    def _apply_written(self) -> bool:
        """Applies the entries that this process wrote.

        Returns:
            Whether all of them are in memory; False if the log must be read, because it contains
            other entries before them.
        """
        fresh = self._fresh
        while self._written:
            entries = self._written.popleft()
            if entries[-1].position <= fresh.position:
                continue  # They have already been read.
            if entries[0].position != fresh.position + 1:
                self._written.clear()
                return False
            self._apply(entries)
        return True

    def _apply(self, entries: Sequence[LogEntry]) -> None:
        self._fresh.apply(entries)
        self._tail.extend((e.position, e.received_us) for e in entries[-_TAIL_LENGTH:])

    def _move_start(self) -> None:
        """Drops feedback that every release includes, or rereads what an older one lacks."""
        fresh = self._fresh
        with self._lock:
            before = self._complete_from
            cut = min(fresh.known_to(manifest) for manifest in self._manifests)
            if before is None or cut > before:
                self._complete_from = cut
        if before is None or cut > before:
            fresh.drop_through(cut)
        elif cut < before:
            fresh.apply(self._log.entries(cut, before))
            # The older release's answers may have been cached without these entries.
            fresh.start_generation()
            with self._lock:
                self._complete_from = cut

    def _check_log(self) -> None:
        """Checks that the log has not been replaced, and contains the marks of the releases."""
        fresh, now = self._fresh, time.monotonic()
        marks = frozenset(m.feedback_mark for m in self._manifests if m.feedback_mark)
        if now < self._next_check and marks == self._checked_marks:
            return
        if self._is_replaced():
            _log.warning("feedback_log_replaced", log=self._log.name, position=fresh.position)
            with self._lock:
                self._complete_from = None
            self._tail.clear()
            fresh.clear()
        unknown = self._log.missing_marks(marks)
        for manifest in self._manifests:
            if manifest.feedback_mark in unknown and manifest.feedback_mark not in self._reported:
                self._reported.add(manifest.feedback_mark)
                _log.warning(
                    "feedback_log_unknown_to_release",
                    log=self._log.name,
                    release_id=manifest.release_id,
                )
        fresh.set_unknown_marks(unknown)
        self._checked_marks = marks
        self._next_check = time.monotonic() + _CHECK_S

    def _is_replaced(self) -> bool:
        """Returns whether entries that were read are missing from the log or are different."""
        if not self._tail:
            return False
        if self._log.position() < self._fresh.position:
            return True
        found = self._log.received([position for position, _ in self._tail])
        return any(found.get(position, received) != received for position, received in self._tail)
