"""The verdict of the promotion gate on a release: its checks, their findings and the decision.

If a release is judged before it is published, the verdict is part of its manifest
(`Manifest.gate`). Verdicts on published releases are stored next to them; see `verdicts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from marquee_core.release.fields import Fields

_MAX_CHECKS, _MAX_TEXT = 200, 100_000


class Decision(StrEnum):
    """The decision of the gate, or of one of its checks, from best to worst."""

    PROMOTE = "promote"
    ASK = "ask"
    REFUSE = "refuse"


_ORDER = list(Decision)


@dataclass(frozen=True)
class Check:
    """One check of the gate.

    Attributes:
        name: The name, such as `ranking` or `spread of stars`.
        decision: The decision of this check.
        text: A description of the findings.
        figures: The figures that the decision is based on, by name.
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
        at: The time of the verdict, RFC 3339.
        decision: Whether to promote the release, to ask a person, or to refuse it.
        checks: All checks, in the order in which they were run.
    """

    release_id: str
    production_id: str
    at: str
    decision: Decision
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, release_id: str, production_id: str, at: str, checks: Sequence[Check]) -> Verdict:
        """Creates a verdict from checks; its decision is the worst of their decisions."""
        decision = max((check.decision for check in checks), key=_ORDER.index)
        return cls(release_id, production_id, at, decision, tuple(checks))

    @property
    def reasons(self) -> list[str]:
        """The findings of all checks whose decision is not `promote`, the worst first."""
        found = [check for check in self.checks if check.decision is not Decision.PROMOTE]
        found.sort(key=lambda check: -_ORDER.index(check.decision))
        return [f"{check.name}: {check.text}" for check in found]

    def lines(self) -> list[str]:
        """Returns the verdict as text: one line per check, then the decision."""
        against = self.production_id or "nothing, because no release is in production"
        width = max(len(check.name) for check in self.checks)
        return [
            f"{self.release_id} compared with {against}",
            *(f"  {c.decision.value:<7}  {c.name:<{width}}  {c.text}" for c in self.checks),
            f"verdict: {self.decision.value}",
        ]

    def with_check(self, check: Check) -> Verdict:
        """Returns the verdict with an added check, which replaces an earlier one of that name."""
        others = [other for other in self.checks if other.name != check.name]
        extended = Verdict.of(self.release_id, self.production_id, self.at, [check, *others])
        return replace(extended, decision=max(extended.decision, self.decision, key=_ORDER.index))


def parse_verdict(raw: object, where: str) -> Verdict:
    """Parses a verdict.

    Args:
        raw: The result of `dataclasses.asdict`, as JSON values.
        where: The path of the value, for error messages.

    Raises:
        ArtifactError: A value is missing, has the wrong type, or is not valid.
    """
    fields = Fields(raw, where)
    checks = []
    for index, each in enumerate(fields.sequence("checks", _MAX_CHECKS)):
        check = Fields(each, f"{where}, checks[{index}]")
        text = check.text("text", _MAX_TEXT)
        checks.append(Check(check.text("name"), _decision(check), text, check.numbers("figures")))
    if not checks:
        raise fields.error("checks", "the list is empty")
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
        raise fields.error("decision", f"unknown decision {text[:100]!r}") from None
