"""The pointer to the release in production, and an audit of its changes.

    <root>/production          the release in production, its predecessors and the latest change
    <root>/audit/<n>.json      the content of `production` after the n-th change; written once

`production` is replaced by compare and swap, so concurrent promotions do not overwrite each other.
The file includes its latest change. If the process that made the change is killed before it records
the change in the audit, the next process to change the pointer does so first. The audit is
therefore complete, and a damaged `production` can be restored from it.

If trusted keys are configured, one of them must have signed the pointer, and a pointer that is
older than the audit, or older than one that was read before on this machine, is refused. Without
these checks, anyone with write access to the store could choose among the signed releases.
"""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from marquee_core.errors import ArtifactError, reason_of
from marquee_core.json_text import parse_json
from marquee_core.release.manifest import check_release_id
from marquee_core.release.replay_guard import ReplayGuard
from marquee_core.release.signing import Signer, TrustedKeys
from marquee_core.release.storage import Storage

PRODUCTION = "production"
AUDIT = "audit"
PROMOTE, ROLLBACK = "promote", "rollback"
_HISTORY_LIMIT = 100
_MAX_TEXT = 1000
_WHAT = f"the file {PRODUCTION!r}"
_NO_KEY = (
    "trusted keys are configured, so servers accept only signed changes of the release in "
    "production; sign the change with --signing-key"
)


@dataclass(frozen=True)
class Change:
    """A change of the release in production.

    Attributes:
        number: The number of the change, counted from 1; 0 if it predates the audit.
        action: `promote` or `rollback`.
        previous_id: The release that was in production before; "" if there was none or if it is
            not known.
        by: Who made the change.
        why: The reason, as free text; may be empty.
        forced: Whether the change was made in spite of failed checks.
    """

    number: int
    action: str
    previous_id: str
    by: str
    why: str
    forced: bool


@dataclass(frozen=True)
class Production:
    """The release in production.

    Attributes:
        release_id: The release's id.
        promoted_at: The time of the change that put it in production, RFC 3339.
        history: The ids of its predecessors in production, the most recent first.
        change: The change that put it in production.
        signature: The key's id and the signature of the other fields; "" if it is not signed.
    """

    release_id: str
    promoted_at: str
    history: tuple[str, ...]
    change: Change
    signature: str = ""

    def signed_content(self) -> bytes:
        """Returns the bytes to sign, whose prefix distinguishes them from a signed manifest."""
        fields = asdict(self)
        del fields["signature"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return f"{PRODUCTION}\n{text}".encode()

    def to_json(self) -> bytes:
        """Returns the pointer as JSON, the inverse of `from_json`."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Production:
        """Parses the result of `to_json`; the change may be missing.

        Raises:
            ArtifactError: The content is damaged.
        """
        what = f"file {PRODUCTION!r}"
        raw = parse_json(content, what)
        try:
            history, change = raw["history"], raw.get("change")
            if not isinstance(history, list):
                raise TypeError("the history must be a list")
            return cls(
                check_release_id(raw["release_id"]),
                _text(raw, "promoted_at"),
                tuple(check_release_id(release_id) for release_id in history),
                Change(0, PROMOTE, "", "", "", False) if change is None else _change(change),
                _text({"signature": "", **raw}, "signature"),
            )
        except (KeyError, TypeError, AttributeError, ValueError, ArtifactError) as error:
            raise ArtifactError(f"damaged {what}: {reason_of(error)}") from error


def default_author() -> str:
    """Returns the user and host of this process, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user id has no name, as in some containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


Choose = Callable[[Production | None], tuple[str, tuple[str, ...]]]
"""Chooses the next release in production and its history, given the current state."""


class ProductionPointer:
    """Reads and changes the pointer to the release in production."""

    def __init__(
        self,
        storage: Storage,
        replay_guard: ReplayGuard,
        trusted: TrustedKeys | None = None,
        signer: Signer | None = None,
    ) -> None:
        """Takes the storage of the release store, and keys.

        Args:
            storage: The storage.
            replay_guard: Records the number of the latest change that was read.
            trusted: The keys of which one must have signed the pointer; None to accept any.
            signer: Signs changes; None to leave them unsigned.
        """
        self._storage = storage
        self.trusted, self.signer = trusted, signer
        self._replay_guard = replay_guard

    def read(self) -> Production | None:
        """Returns the release in production; None if no release has been promoted yet.

        Raises:
            ArtifactError: The pointer is damaged; or trusted keys are configured, and the pointer
                is not signed by one of them, or is older than the audit or than one read before.
            OSError: The store cannot be read.
        """
        try:
            state = Production.from_json(self._storage.read(PRODUCTION))
        except FileNotFoundError:
            return None
        self._check(state)
        if self.trusted is not None:
            if not self._replay_guard.newest(PRODUCTION):
                self._check_against_audit(state)
            self._replay_guard.check(PRODUCTION, state.change.number)
        return state

    def change(
        self, action: str, choose: Choose, *, by: str = "", why: str = "", forced: bool = False
    ) -> Production:
        """Changes the release in production, and records the change in the audit.

        If the pointer is changed concurrently, `choose` is called again with the new state. If the
        pointer is damaged, or is not signed by one of the trusted keys, `choose` receives the
        latest state in the audit that is valid.

        Args:
            action: `promote` or `rollback`.
            choose: Chooses the release and its history; an exception aborts the change.
            by: Who makes the change; by default the user and host of this process.
            why: The reason, as free text.
            forced: Whether the change is made in spite of failed checks.

        Raises:
            ValueError: `by` or `why` is longer than 1,000 characters.
            ArtifactError: Trusted keys are configured, but no key to sign the change.
            SwapConflictError: The pointer was changed concurrently, repeatedly for about a minute.
            OSError: The store cannot be read or written to.
        """
        author = by or default_author()
        if max(len(author), len(why)) > _MAX_TEXT:
            raise ValueError(f"author and reason may have at most {_MAX_TEXT} characters each")
        if self.trusted is not None and self.signer is None:
            raise ArtifactError(_NO_KEY)

        def apply(content: bytes | None) -> bytes:
            before = self._state(content)
            release_id, history = choose(before)
            change = Change(
                self._next_number(before),
                action,
                before.release_id if before else "",
                author,
                why,
                forced,
            )
            now = datetime.now(UTC).isoformat()
            state = Production(release_id, now, history[:_HISTORY_LIMIT], change)
            if self.signer is not None:
                signature = self.signer.sign(state.signed_content()).decode().strip()
                state = replace(state, signature=signature)
            self._check(state)
            return state.to_json()

        after = Production.from_json(self._storage.update(PRODUCTION, apply))
        self._record(after)
        return after

    def audit(self, limit: int = 0) -> list[Production]:
        """Returns the recorded changes, each as the resulting state; the most recent first.

        Args:
            limit: The maximum number of changes to return; 0 for all.

        Raises:
            ArtifactError: A record is damaged.
            OSError: The store cannot be read.
        """
        names = sorted(self._names(), reverse=True)
        states = [
            Production.from_json(self._storage.read(f"{AUDIT}/{name}"))
            for name in (names[:limit] if limit else names)
        ]
        try:
            current = Production.from_json(self._storage.read(PRODUCTION))
        except (ArtifactError, FileNotFoundError):
            current = None
        newest = states[0].change.number if states else 0
        if current is not None and current.change.number > newest:
            states.insert(0, current)
        return states[:limit] if limit else states

    def _state(self, content: bytes | None) -> Production | None:
        """Returns the current state, after recording it in the audit if necessary."""
        if content is None:
            return None
        try:
            state = Production.from_json(content)
            self._check(state)
        except ArtifactError:
            return self._newest_recorded()
        self._record(state)
        if self.trusted is not None:
            # An earlier signed pointer may have been put back.
            recorded = self._newest_recorded()
            if recorded is not None and recorded.change.number > state.change.number:
                return recorded
        return state

    def _newest_recorded(self) -> Production | None:
        """Returns the latest state in the audit that is signed, if trusted keys are configured."""
        for name in sorted(self._names(), reverse=True):
            state = Production.from_json(self._storage.read(f"{AUDIT}/{name}"))
            if self._is_trusted(state):
                return state
        return None

    def _check(self, state: Production) -> None:
        """Checks the signature of a state.

        Raises:
            ArtifactError: Trusted keys are configured, and none of them has signed it.
        """
        if self.trusted is not None:
            self.trusted.check(state.signed_content(), state.signature.encode(), _WHAT)

    def _check_against_audit(self, state: Production) -> None:
        """Checks that the audit has no later change.

        This protects a server that has not read the pointer before.

        Raises:
            ArtifactError: The audit has a later change.
        """
        recorded = self._newest_recorded()
        if recorded is not None and recorded.change.number > state.change.number:
            raise ArtifactError(
                f"{_WHAT} is older than the audit: its change has number {state.change.number}, "
                f"but the latest recorded change has number {recorded.change.number}"
            )

    def _is_trusted(self, state: Production) -> bool:
        try:
            self._check(state)
        except ArtifactError:
            return False
        return True

    def _next_number(self, before: Production | None) -> int:
        recorded = max((int(name.partition(".")[0]) for name in self._names()), default=0)
        return max(recorded, before.change.number if before else 0) + 1

    def _record(self, state: Production) -> None:
        if state.change.number:
            try:
                self._storage.create(f"{AUDIT}/{state.change.number:08d}.json", state.to_json())
            except FileExistsError:
                return

    def _names(self) -> list[str]:
        """Returns the file names of the audit's records; other files are ignored."""
        names = self._storage.names(AUDIT)
        return [name for name in names if name.endswith(".json") and name[:-5].isdecimal()]


def _change(raw: dict[str, object]) -> Change:
    number, forced = raw["number"], raw["forced"]
    if not isinstance(number, int) or number < 0 or not isinstance(forced, bool):
        raise TypeError("the number of a change must be an integer, and forced a Boolean")
    action, previous_id = _text(raw, "action"), _text(raw, "previous_id")
    return Change(number, action, previous_id, _text(raw, "by"), _text(raw, "why"), forced)


def _text(raw: dict[str, object], name: str) -> str:
    value = raw[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string")
    return value
