"""Which release is in production, and the record of every change of it.

    <root>/production          the release in production, its predecessors and the latest change
    <root>/audit/<n>.json      what the n-th change made of `production`; written once

`production` is replaced by compare and swap, so promotions at the same time lose nothing. It
carries the latest change itself: whoever comes next records that in the audit first if its author
was killed before doing so. The audit is therefore complete, and a damaged `production` can be
restored from it.

Where keys are trusted, one of them must have signed the pointer, and a pointer that is older than
one that was read before on this machine, or than the audit, is refused. Otherwise whoever can write
to the store could choose among the signed releases.
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
    "trusted keys are set, so servers accept only a signed change of the release in production; "
    "sign it with --signing-key"
)


@dataclass(frozen=True)
class Change:
    """A change of the release in production.

    Attributes:
        number: The number of the change, from 1; 0 if it was made before changes were recorded.
        action: `promote` or `rollback`.
        previous_id: The release that was in production before; "" if there was none or if it
            cannot be known.
        by: Who made it.
        why: Why, in words; may be empty.
        forced: Whether checks that advised against it were overruled.
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
        promoted_at: Time of the change that put it there, RFC 3339.
        history: The ids of the releases in production before it, the most recent first.
        change: The change that put it there.
        signature: The key's id and its signature of all that; "" if it is not signed.
    """

    release_id: str
    promoted_at: str
    history: tuple[str, ...]
    change: Change
    signature: str = ""

    def signed_content(self) -> bytes:
        """What a signature is over. It can be no manifest, which keys sign as well."""
        fields = asdict(self)
        del fields["signature"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return f"{PRODUCTION}\n{text}".encode()

    def to_json(self) -> bytes:
        """Returns the JSON that `from_json` reads."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Production:
        """Parses what `to_json` wrote; the change may be missing.

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
    except (KeyError, OSError):  # no such user, as in some containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


Choose = Callable[[Production | None], tuple[str, tuple[str, ...]]]
"""Chooses the next release in production and its history, from the present state."""


class ProductionPointer:
    """Reads and changes which release is in production."""

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
            replay_guard: Remembers the latest change that was read.
            trusted: The keys of which one must have signed the pointer; None to accept any.
            signer: Signs changes; None to leave them unsigned.
        """
        self._storage = storage
        self.trusted, self.signer = trusted, signer
        self._replay_guard = replay_guard

    def read(self) -> Production | None:
        """Returns the release in production; None if no release has been promoted yet.

        Raises:
            ArtifactError: The file that names it is damaged, or keys are trusted, and it is not
                signed by one of them, or older than one that was read before or than the audit.
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

        If others change it at the same time, `choose` is called again with what they left. If the
        file is damaged, or is not signed by one of the trusted keys, `choose` gets the latest state
        of the audit that is.

        Args:
            action: `promote` or `rollback`.
            choose: Chooses the release and its history; what it raises ends the change.
            by: Who makes the change; by default the user and host of this process.
            why: Why, in words.
            forced: Whether checks that advised against it are overruled.

        Raises:
            ValueError: `by` or `why` is longer than 1,000 characters.
            ArtifactError: Trusted keys are set, and the change would not be signed.
            SwapConflictError: Others changed it again and again for about a minute.
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
        """Returns the recorded changes, each as the state that it made; the most recent first.

        Args:
            limit: Most changes to return; 0 for all.

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
        """Returns the present state, which is recorded in the audit if it is not yet."""
        if content is None:
            return None
        try:
            state = Production.from_json(content)
            self._check(state)
        except ArtifactError:
            return self._newest_recorded()
        self._record(state)
        if self.trusted is not None:
            # An earlier file, which was signed as well, may have been put back.
            recorded = self._newest_recorded()
            if recorded is not None and recorded.change.number > state.change.number:
                return recorded
        return state

    def _newest_recorded(self) -> Production | None:
        """The latest state in the audit; where keys are trusted, the latest that is signed."""
        for name in sorted(self._names(), reverse=True):
            state = Production.from_json(self._storage.read(f"{AUDIT}/{name}"))
            if self._is_trusted(state):
                return state
        return None

    def _check(self, state: Production) -> None:
        """Checks the signature of a state.

        Raises:
            ArtifactError: Keys are trusted, and none of them has signed it.
        """
        if self.trusted is not None:
            self.trusted.check(state.signed_content(), state.signature.encode(), _WHAT)

    def _check_against_audit(self, state: Production) -> None:
        """Checks that the audit has no later change, for a server that has read none before.

        Raises:
            ArtifactError: It has one.
        """
        recorded = self._newest_recorded()
        if recorded is not None and recorded.change.number > state.change.number:
            raise ArtifactError(
                f"{_WHAT} is older than the audit: its change has the number "
                f"{state.change.number}, and the latest one is {recorded.change.number}"
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
        """Returns the names of the audit's records; other files in its folder are left out."""
        names = self._storage.names(AUDIT)
        return [name for name in names if name.endswith(".json") and name[:-5].isdecimal()]


def _change(raw: dict[str, object]) -> Change:
    number, forced = raw["number"], raw["forced"]
    if not isinstance(number, int) or number < 0 or not isinstance(forced, bool):
        raise TypeError("the number of a change must be an integer, and forced true or false")
    action, previous_id = _text(raw, "action"), _text(raw, "previous_id")
    return Change(number, action, previous_id, _text(raw, "by"), _text(raw, "why"), forced)


def _text(raw: dict[str, object], name: str) -> str:
    value = raw[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text")
    return value
