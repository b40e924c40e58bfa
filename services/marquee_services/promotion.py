"""Promotes releases through the gate.

The gate needs the trainer's packages, so it is found by the entry-point group `marquee.gate`. Where
the trainer is not installed, a verdict that the trainer has recorded is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeAlias, cast

from marquee_core.errors import ArtifactError
from marquee_core.release.verdict import Check, Decision, Verdict, latest_verdict

if TYPE_CHECKING:
    from marquee_core.release.store import Production, ReleaseStore

EXIT_CODES = {Decision.PROMOTE: 0, Decision.REFUSE: 3, Decision.ASK: 4}
"""The exit codes of commands that promote, by what the gate decided."""

NEWEST = "newest"
"""In place of a release id: the release that was published last."""

Gate: TypeAlias = "Callable[[ReleaseStore, str], Verdict]"
"""Judges a release of a store, by its id, against the one in production."""

_GROUP = "marquee.gate"
_MAX_WHY = 1000


@dataclass(frozen=True)
class Promotion:
    """What became of a promotion.

    Attributes:
        production: The new state of production; None if the release was not promoted.
        verdict: The gate's verdict; None if the gate was passed over by force.
    """

    production: Production | None
    verdict: Verdict | None

    @property
    def decision(self) -> Decision:
        """What was decided: `promote` if the release is in production now."""
        if self.production is not None or self.verdict is None:
            return Decision.PROMOTE
        return self.verdict.decision


def newest_release(store: ReleaseStore) -> str:
    """The id of the release that was published last.

    Raises:
        ArtifactError: The store holds no release.
    """
    published = store.manifests()
    if not published:
        raise ArtifactError(f"{store.url} holds no release")
    return published[0].release_id


def promote(
    store: ReleaseStore,
    release_id: str,
    *,
    why: str = "",
    by: str = "",
    force: bool = False,
    approve: bool = False,
    require_approval: bool = False,
    gate: Gate | None = None,
) -> Promotion:
    """Promotes a release if the gate agrees, and records in the audit what the gate said.

    A release that is in production already needs no verdict.

    Args:
        store: The store.
        release_id: The release.
        why: Why it is promoted, for the audit.
        by: Who promotes it, for the audit; "" for the user and host of this process.
        force: Whether to promote it whatever the gate would say. The audit says so.
        approve: Whether a person has approved it, which the verdict `ask` needs.
        require_approval: Whether a person must approve every release.
        gate: The gate; None for the one of this installation.

    Raises:
        ArtifactError: The release does not exist or a file is damaged, the release in production
            cannot be read, or this installation has no gate and there is no verdict.
        OSError: The store cannot be read or written to.
    """
    if force:
        reason = "; ".join(filter(None, (why, "the gate was passed over")))
        production = store.promote(release_id, why=reason[:_MAX_WHY], forced=True, by=by)
        return Promotion(production, None)
    current = store.production()
    if current is not None and current.release_id == release_id:
        return Promotion(store.promote(release_id, why=why, by=by), None)
    verdict = judge(store, release_id, gate)
    if require_approval and verdict.decision is Decision.PROMOTE:
        check = Check("approval", Decision.ASK, "every promotion must be approved")
        verdict = replace(verdict, decision=Decision.ASK, checks=(*verdict.checks, check))
    if verdict.decision is Decision.REFUSE or (verdict.decision is Decision.ASK and not approve):
        return Promotion(None, verdict)
    said = f"the gate says {verdict.decision.value}"
    if verdict.decision is Decision.ASK:
        said += f" ({'; '.join(verdict.reasons)}), approved"
    reason = "; ".join(filter(None, (why, said)))
    return Promotion(store.promote(release_id, why=reason[:_MAX_WHY], by=by), verdict)


def judge(store: ReleaseStore, release_id: str, gate: Gate | None = None) -> Verdict:
    """The gate's verdict on a release against the one in production now.

    A recorded verdict is used if it is against that one, except that a refused release is judged
    again where there is a gate.

    Raises:
        ArtifactError: The release does not exist, or this installation has no gate and there is no
            such verdict.
        OSError: The store cannot be read or written to.
    """
    store.manifest(release_id)
    current = store.production()
    production_id = "" if current is None else current.release_id
    recorded = latest_verdict(store.storage, release_id)
    gate = gate or _installed_gate()
    # What was refused may have been mended since.
    if (
        recorded is not None
        and recorded.production_id == production_id
        and (gate is None or recorded.decision is not Decision.REFUSE)
    ):
        return recorded
    if gate is None:
        raise ArtifactError(
            f"{release_id} was not compared with the release in production, and the gate needs the "
            "extra `trainer`; --force promotes it unseen"
        )
    return gate(store, release_id)


def _installed_gate() -> Gate | None:
    for entry in entry_points(group=_GROUP):
        try:
            return cast("Gate", entry.load())
        except ModuleNotFoundError:
            # The entry point is there without the extra's packages.
            continue
    return None
