"""The feedback in memory: what users have done since the release was trained.

Only the follower's thread modifies it. Answers read it without a lock, because a user's feedback is
an immutable object that is replaced as a whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from marquee_core.feedback.event_ratings import counts_as_rating, latest_by_item
from marquee_core.feedback.events import EntryType, FeedbackKind, LogEntry, user_digest
from marquee_core.release.manifest import Manifest

MAX_EVENTS = 1_000
"""Most events of a user that are folded in; the oldest ones are dropped."""

# The number of bits of a version in the database.
_VERSION_BITS = 63
# The approximate memory of a user and of an event in bytes, with their strings and containers.
_USER_BYTES, _EVENT_BYTES = 500, 200


class FreshEvent(NamedTuple):
    """An event that counts as a rating.

    Attributes:
        position: Its position in the log.
        item_id: The item's id.
        kind: The kind of feedback.
        value: Stars of a rating, or the share watched of a play.
        time_us: When it happened, in microseconds since 1970.
    """

    position: int
    item_id: str
    kind: FeedbackKind
    value: float
    time_us: int


class Withdrawal(NamedTuple):
    """The deletion of an event, on which a release may have been trained.

    Attributes:
        position: The deletion's position in the log.
        deleted_position: The position of the deleted event.
        item_id: The item's id.
        kind: The kind of the deleted event.
    """

    position: int
    deleted_position: int
    item_id: str
    kind: FeedbackKind


@dataclass(frozen=True)
class UserFeedback:
    """What a user has done since a release was trained.

    Attributes:
        version: The position of the latest change in the log, which identifies a version of the
            feedback; 0 if there is no feedback.
        is_forgotten: Whether the user was forgotten, so that the training ratings must not be used.
        events: The events that count as ratings, in the order of the log.
        withdrawn: The events that were deleted after the release was trained on them.
        rewritten: The position at which events were last removed; earlier versions are lost.
        generation: See `FreshFeedback.generation`.
    """

    version: int = 0
    is_forgotten: bool = False
    events: tuple[FreshEvent, ...] = ()
    rewritten: int = 0
    generation: int = 0
    withdrawn: tuple[Withdrawal, ...] = ()

    @property
    def size(self) -> int:
        """The number of events and withdrawals in memory."""
        return len(self.events) + len(self.withdrawn)

    @property
    def cache_version(self) -> int:
        """The version by which this gateway may cache answers; 0 if there is no feedback."""
        return self.generation << _VERSION_BITS | self.version if self.version else 0

    @cached_property
    def ratings(self) -> list[FreshEvent]:
        """The event that counts for each item, ordered by time, oldest first."""
        return latest_by_item(self.events)

    def as_of(self, version: int) -> UserFeedback | None:
        """Returns the feedback as of an earlier version; None if that is no longer known."""
        if version == self.version:
            return self
        if not version and not self.is_forgotten:
            return NO_FEEDBACK
        if version > self.version or version < self.rewritten:
            return None
        events = tuple(event for event in self.events if event.position <= version)
        return replace(self, version=version, events=events)


NO_FEEDBACK = UserFeedback()


class FreshFeedback:
    """Holds users' feedback up to a number of bytes, evicting the users with the oldest changes.

    The record that a user was forgotten is never evicted.

    Attributes:
        position: The position in the log up to which the feedback is complete.
        evicted: The number of users that were evicted because of the limit.
        on_forgotten: Called with the digest of each user that is forgotten.
        generation: Changes whenever a version of a user's feedback may have a different meaning
            than before, because the log was replaced or reread from an earlier position.
    """

    def __init__(self, max_bytes: int) -> None:
        """Creates an empty holder of at most `max_bytes` bytes."""
        self._max_bytes = max_bytes
        # By the digest of the user's id, which also identifies forgotten users.
        self._users: OrderedDict[bytes, UserFeedback] = OrderedDict()
        self._forgotten: dict[bytes, int] = {}
        self._event_count = 0
        self._unknown_marks: frozenset[str] = frozenset()
        self.position = 0
        self.evicted = 0
        self.on_forgotten: Callable[[bytes], None] = lambda _: None
        self.generation = 0

    def __len__(self) -> int:
        return len(self._users)

    @property
    def nbytes(self) -> int:
        """The approximate size of the feedback in bytes."""
        users = len(self._users) + len(self._forgotten)
        return users * _USER_BYTES + self._event_count * _EVENT_BYTES

    def known_to(self, manifest: Manifest) -> int:
        """Returns the position in the log up to which a release was trained on it.

        The result is 0 if the log lacks the mark of the release's training. It is then a different
        log, or was restored from an older backup, and its positions have a different meaning.
        """
        return 0 if manifest.feedback_mark in self._unknown_marks else manifest.feedback_position

    def for_release(self, user_id: str, manifest: Manifest) -> UserFeedback:
        """Returns what a user has done since a release was trained.

        Args:
            user_id: The user's id; "" for a visitor.
            manifest: The manifest of the release that answers.
        """
        return self.of(user_id, self.known_to(manifest))

    def of(self, user_id: str, after: int) -> UserFeedback:
        """Returns a user's feedback.

        Args:
            user_id: The user's id; "" for a visitor.
            after: The position up to which the answering release was trained on the log.
        """
        if not user_id or not (self._users or self._forgotten):
            return NO_FEEDBACK
        digest = user_digest(user_id)
        user = self._users.get(digest, NO_FEEDBACK)
        forgotten = self._forgotten.get(digest, 0)
        version = max(user.version, forgotten)
        if version <= after:
            return NO_FEEDBACK
        start = max(after, forgotten)
        events, withdrawn = user.events, user.withdrawn
        if start and events and events[0].position <= start:
            events = tuple(event for event in events if event.position > start)
        if withdrawn:
            withdrawn = tuple(w for w in withdrawn if w.deleted_position <= after < w.position)
        if not forgotten and events is user.events and withdrawn is user.withdrawn:
            return user
        is_forgotten = forgotten > after
        rewritten = max(user.rewritten, forgotten)
        return UserFeedback(version, is_forgotten, events, rewritten, self.generation, withdrawn)

    def set_unknown_marks(self, tokens: frozenset[str]) -> None:
        """Sets the marks of loaded releases that the log does not contain."""
        if tokens != self._unknown_marks:
            self._unknown_marks = tokens
            self.start_generation()

    def start_generation(self) -> None:
        """Invalidates the cached answers of users with feedback."""
        self.generation += 1
        for digest, user in list(self._users.items()):
            self._users[digest] = replace(user, generation=self.generation)

    def apply(self, entries: Iterable[LogEntry]) -> None:
        """Applies entries of the log."""
        for entry in entries:
            match entry.type:
                case EntryType.EVENT:
                    self._add(entry)
                case EntryType.DELETION:
                    self._delete(entry)
                case EntryType.FORGOTTEN:
                    self._forget(entry)
                    self.on_forgotten(entry.user_digest)
            while self._users and self.nbytes > self._max_bytes:
                _, dropped = self._users.popitem(last=False)
                self._event_count -= dropped.size
                self.evicted += 1
            self.position = max(self.position, entry.position)

    def drop_through(self, position: int) -> None:
        """Drops the feedback up to a position, which every loaded release includes."""
        for digest, user in list(self._users.items()):
            events = tuple(event for event in user.events if event.position > position)
            withdrawn = tuple(each for each in user.withdrawn if each.position > position)
            kept = replace(user, events=events, withdrawn=withdrawn)
            self._event_count -= user.size - kept.size
            if user.version <= position:
                del self._users[digest]
            else:
                self._users[digest] = kept
        for digest, forgotten in list(self._forgotten.items()):
            if forgotten <= position:
                del self._forgotten[digest]
        self.position = max(self.position, position)

    def clear(self) -> None:
        """Drops everything."""
        self._users.clear()
        self._forgotten.clear()
        self._event_count = self.position = 0
        self.start_generation()

    def _add(self, entry: LogEntry) -> None:
        event = entry.event
        if event is None or not counts_as_rating(event.kind, event.value):
            return
        digest = user_digest(event.user_id)
        user = self._users.get(digest, NO_FEEDBACK)
        if user.events and user.events[-1].position == entry.position:
            return
        fresh = FreshEvent(entry.position, event.item_id, event.kind, event.value, event.time_us)
        events, rewritten = (*user.events, fresh), user.rewritten
        if user.version > entry.position:
            # The log is being reread from an earlier position, for an older release.
            if any(known.position == entry.position for known in user.events):
                return
            events = tuple(sorted(events, key=lambda each: each.position))
        version = max(user.version, entry.position)
        if len(events) > MAX_EVENTS:
            events, rewritten = events[-MAX_EVENTS:], version
        after = UserFeedback(
            version, user.is_forgotten, events, rewritten, self.generation, user.withdrawn
        )
        self._put(digest, user, after)

    def _delete(self, entry: LogEntry) -> None:
        event = entry.event
        # A deletion does not record the share watched of a play, so any play may have counted.
        if event is None or not counts_as_rating(event.kind, 1.0):
            return
        digest = user_digest(event.user_id)
        user = self._users.get(digest, NO_FEEDBACK)
        if any(known.position == entry.position for known in user.withdrawn):
            return
        deleted = Withdrawal(entry.position, entry.deleted_position, event.item_id, event.kind)
        position = max(user.version, entry.position)
        after = UserFeedback(
            position,
            False,
            tuple(e for e in user.events if e.position != entry.deleted_position),
            position,
            self.generation,
            (*user.withdrawn, deleted)[-MAX_EVENTS:],
        )
        self._put(digest, user, after)

    def _forget(self, entry: LogEntry) -> None:
        self._forgotten[entry.user_digest] = max(
            entry.position, self._forgotten.get(entry.user_digest, 0)
        )
        user = self._users.get(entry.user_digest)
        if user is not None:
            events = tuple(event for event in user.events if event.position > entry.position)
            withdrawn = tuple(each for each in user.withdrawn if each.position > entry.position)
            self._put(entry.user_digest, user, replace(user, events=events, withdrawn=withdrawn))

    def _put(self, digest: bytes, before: UserFeedback, after: UserFeedback) -> None:
        self._event_count += after.size - before.size
        self._users[digest] = after
        self._users.move_to_end(digest)
