"""Verdicts of the promotion gate, kept beside the releases: `verdicts/<release id>.json`.

A release is immutable, and its verdict depends on the release in production, so verdicts are not
part of the manifest. The newest verdict is last in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from marquee_core.errors import ArtifactError, reason_of
from marquee_core.json_text import parse_json
from marquee_core.release.manifest import check_release_id
from marquee_core.release.storage import Storage

_FOLDER = "verdicts"
_KEPT = 20


class Decision(StrEnum):
    """What the gate, or one of its checks, says about a promotion. The worst comes last."""

    PROMOTE = "promote"
    ASK = "ask"
    REFUSE = "refuse"


_ORDER = list(Decision)


@dataclass(frozen=True)
class Check:
    """One check of the gate.

    Attributes:
        name: Its name, such as `ranking` or `spread of stars`.
        decision: What it says.
        text: What was found, in words.
        figures: The figures behind it, by name.
    """

    name: str
    decision: Decision
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on the promotion of a release.

    Attributes:
        release_id: The release.
        production_id: The release in production that it was compared with; "" if there was none.
        at: When, RFC 3339.
        decision: Whether to promote it, to ask a person, or to refuse it.
        checks: All checks, in the order in which they were made.
    """

    release_id: str
    production_id: str
    at: str
    decision: Decision
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, release_id: str, production_id: str, at: str, checks: Sequence[Check]) -> Verdict:
        """The verdict of some checks: the worst of what they say."""
        decision = max((check.decision for check in checks), key=_ORDER.index)
        return cls(release_id, production_id, at, decision, tuple(checks))

    @property
    def reasons(self) -> list[str]:
        """What the checks found that do not say `promote`, the worst first."""
        found = [check for check in self.checks if check.decision is not Decision.PROMOTE]
        found.sort(key=lambda check: -_ORDER.index(check.decision))
        return [f"{check.name}: {check.text}" for check in found]

    def lines(self) -> list[str]:
        """The verdict for people: a line for each check, then the decision."""
        against = self.production_id or "nothing, because no release is in production"
        width = max(len(check.name) for check in self.checks)
        return [
            f"{self.release_id} compared with {against}",
            *(f"  {c.decision.value:<7}  {c.name:<{width}}  {c.text}" for c in self.checks),
            f"verdict: {self.decision.value}",
        ]


def record_verdict(storage: Storage, verdict: Verdict) -> None:
    """Adds a verdict to those of its release.

    Raises:
        ArtifactError: The file of verdicts is damaged.
        OSError: The store cannot be read or written to.
    """

    def add(content: bytes | None) -> bytes:
        before: list[Any] = []
        if content is not None:
            try:
                before = list(parse_json(content, "verdicts")["verdicts"])
            except (KeyError, TypeError) as error:
                what = f"damaged verdicts of {verdict.release_id}: {reason_of(error)}"
                raise ArtifactError(what) from error
        kept = [*before, asdict(verdict)][-_KEPT:]
        return (json.dumps({"verdicts": kept}, indent=2, allow_nan=False) + "\n").encode()

    storage.update(_path(verdict.release_id), add)


def latest_verdict(storage: Storage, release_id: str) -> Verdict | None:
    """The newest verdict on a release; None if the gate has not judged it.

    Raises:
        ArtifactError: The file of verdicts is damaged.
        OSError: The store cannot be read.
    """
    try:
        content = storage.read(_path(release_id))
    except FileNotFoundError:
        return None
    try:
        return _parse(parse_json(content, "verdicts")["verdicts"][-1])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f"damaged verdicts of {release_id}: {reason_of(error)}") from error


def _parse(raw: Mapping[str, Any]) -> Verdict:
    checks = tuple(
        Check(c["name"], Decision(c["decision"]), c["text"], c["figures"]) for c in raw["checks"]
    )
    decision = Decision(raw["decision"])
    return Verdict(raw["release_id"], raw["production_id"], raw["at"], decision, checks)


def _path(release_id: str) -> str:
    return f"{_FOLDER}/{check_release_id(release_id)}.json"
