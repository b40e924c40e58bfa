"""The verdict of the promotion gate on a release: its checks, what they found and what follows.

A release that is judged before it is published holds its verdict in the manifest (`Manifest.gate`).
Verdicts on published releases are kept beside them; see `verdicts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from marquee_core.release.fields import Fields

_MAX_CHECKS, _MAX_TEXT = 200, 100_000


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
        """Returns the verdict of some checks: the worst of what they say."""
        decision = max((check.decision for check in checks), key=_ORDER.index)
        return cls(release_id, production_id, at, decision, tuple(checks))

    @property
    def reasons(self) -> list[str]:
        """What the checks found that do not say `promote`, the worst first."""
        found = [check for check in self.checks if check.decision is not Decision.PROMOTE]
        found.sort(key=lambda check: -_ORDER.index(check.decision))
        return [f"{check.name}: {check.text}" for check in found]

    def lines(self) -> list[str]:
        """Returns the verdict for people: a line for each check, then the decision."""
        against = self.production_id or "nothing, because no release is in production"
        width = max(len(check.name) for check in self.checks)
        return [
            f"{self.release_id} compared with {against}",
            *(f"  {c.decision.value:<7}  {c.name:<{width}}  {c.text}" for c in self.checks),
            f"verdict: {self.decision.value}",
        ]

    def with_check(self, check: Check) -> Verdict:
        """Returns the verdict with one more check, in index of an earlier one of that name."""
        others = [other for other in self.checks if other.name != check.name]
        made = Verdict.of(self.release_id, self.production_id, self.at, [check, *others])
        return replace(made, decision=max(made.decision, self.decision, key=_ORDER.index))


def parse_verdict(raw: object, where: str) -> Verdict:
    """Reads the JSON of a verdict.

    Args:
        raw: What `dataclasses.asdict` made of it, as JSON values.
        where: Its index, for errors.

    Raises:
        ArtifactError: A value is missing, of another type or impossible.
    """
    fields = Fields(raw, where)
    checks = []
    for index, each in enumerate(fields.sequence("checks", _MAX_CHECKS)):
        check = Fields(each, f"{where}, checks[{index}]")
        text = check.text("text", _MAX_TEXT)
        checks.append(Check(check.text("name"), _decision(check), text, check.numbers("figures")))
    if not checks:
        raise fields.error("checks", "there is none")
    return Verdict(
        fields.text("release_id"),
        fields.text("production_id"),
        fields.time("at"),
        _decision(fields),
        tuple(checks),
    )


def _decision(fields: Fields) -> Decision:
    text = fields.text("decision")
    try:
        return Decision(text)
    except ValueError:
        raise fields.error("decision", f"{text[:100]!r} is no decision") from None
