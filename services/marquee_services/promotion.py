"""Promotes releases, for the trainer, `marquee releases promote` and experiments.

A release is first verified, by loading it as the servers do, and then judged by the gate. The gate
requires the trainer's packages, so it is looked up in the entry-point group `marquee.gate`. If the
trainer is not installed, the verdict that the trainer has recorded is used.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from marquee_core.errors import ArtifactError
from marquee_core.release.derive import derive
from marquee_core.release.staging import stage
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_core.release.verdicts import latest_verdict, record_verdict
from marquee_core.service_names import CF, INFERENCE
from marquee_services.server.environment import skip_keras

if TYPE_CHECKING:
    from marquee_core.release.store import Production, ReleaseStore
    from marquee_services.standalone.verification import Verification

EXIT_CODES = {Decision.PROMOTE: 0, Decision.REFUSE: 3, Decision.ASK: 4}
"""The exit codes of commands that promote, by the gate's decision."""

NEWEST = "newest"
"""Accepted in place of a release id, for the release that was published last."""

Gate: TypeAlias = "Callable[[ReleaseStore, str, ReleaseStore], Verdict]"
"""Compares a release with the one in production. The arguments are the store of production, the
release's id, and the store that holds the release, which is a different one before publication."""

SERVERS, APPROVAL = "servers", "approval"
"""The checks that are added to those of the gate."""

_GROUP = "marquee.gate"
_MAX_WHY = 1000


class CannotVerifyError(ArtifactError):
    """This installation lacks packages that are needed to load a release as the servers do."""


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion.

    Attributes:
        production: The new state of production; None if the release was not promoted.
        verdict: The gate's verdict; None if the gate was not needed or was bypassed.
    """

    production: Production | None
    verdict: Verdict | None

    @property
    def decision(self) -> Decision:
        """The decision: `promote` if the release is in production now."""
        if self.production is not None or self.verdict is None:
            return Decision.PROMOTE
        return self.verdict.decision


def newest_release(store: ReleaseStore) -> str:
    """Returns the id of the release that was published last.

    Raises:
        ArtifactError: The store contains no release.
    """
    published = store.manifests()
    if not published:
        raise ArtifactError(f"{store.url} contains no release")
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
    verdict: Verdict | None = None,
    gate: Gate | None = None,
) -> Promotion:
    """Promotes a release if the gate allows it, and records the verdict in the audit.

    A release that is already in production needs no verdict.

    Args:
        store: The store.
        release_id: The release.
        why: The reason for the promotion, for the audit.
        by: Who promotes it, for the audit; "" for the user and host of this process.
        force: Whether to bypass the gate, which the audit records.
        approve: Whether a person has approved the release, which the verdict `ask` requires.
        require_approval: Whether a person must approve every release.
        verdict: A verdict that `verdict_on` has just returned, which is used if the release in
            production is still the one with which it compares. None to call `verdict_on`.
        gate: The gate; None for the installed one.

    Raises:
        ArtifactError: The release does not exist or a file is damaged, the release in production
            cannot be read, or this installation lacks what is needed to verify or judge it.
        OSError: The store cannot be read or written to.
    """
    if force:
        reason = "; ".join(filter(None, (why, "the gate was bypassed")))
        production = store.promote(release_id, why=reason[:_MAX_WHY], forced=True, by=by)
        return Promotion(production, None)
    store.manifest(release_id)  # Reports a missing or damaged manifest early.
    production_id = _production_id(store)
    if production_id == release_id:
        return Promotion(store.promote(release_id, why=why, by=by), None)
    if verdict is None or verdict.production_id != production_id:
        verdict = verdict_on(store, release_id, require_approval=require_approval, gate=gate)
    if not _is_agreed(verdict, approve):
        return Promotion(None, verdict)
    decision = f"the gate decided {verdict.decision.value}"
    if verdict.decision is Decision.ASK:
        decision += f" ({'; '.join(verdict.reasons)}), approved"
    reason = "; ".join(filter(None, (why, decision)))
    return Promotion(store.promote(release_id, why=reason[:_MAX_WHY], by=by), verdict)


def promote_with_ranking(
    store: ReleaseStore,
    release_id: str,
    weights: Mapping[str, float],
    *,
    why: str = "",
    by: str = "",
    force: bool = False,
    approve: bool = False,
    require_approval: bool = False,
    gate: Gate | None = None,
) -> Promotion:
    """Publishes a copy of a release with different ranking weights, and promotes it.

    The new release is judged before it is published; if it is not promoted, nothing is published.
    Its ranking has not been evaluated on held-out ratings, so the gate asks for approval.

    Args:
        store: The store; its `signer` signs the release.
        release_id: The existing release.
        weights: The weights of the models that rank, by name.
        why: The origin of the weights, for the manifest and the audit.
        by: See `promote`.
        force: See `promote`.
        approve: See `promote`.
        require_approval: See `promote`.
        gate: See `promote`.

    Raises:
        ArtifactError: As for `promote`. Also raised if the release lacks one of the models, the
            weights are invalid, or releases must be signed and the store has no key.
        OSError: The store cannot be read or written to.
    """
    if store.trusted is not None and store.signer is None:
        raise ArtifactError("releases must be signed: give the key for the new one (--signing-key)")
    with tempfile.TemporaryDirectory(prefix="marquee-release-") as name:
        folder, manifest = derive(store, release_id, weights, why, Path(name))
        verdict = None
        if not force:
            candidates, folder = stage(Path(name) / "staged", folder, manifest)
            verdict = verdict_on(
                store,
                manifest.release_id,
                candidates=candidates,
                require_approval=require_approval,
                gate=gate,
            )
            if not _is_agreed(verdict, approve):
                return Promotion(None, verdict)
        store.publish(folder, dataclasses.replace(manifest, gate=verdict))
    return promote(
        store,
        manifest.release_id,
        why=why,
        by=by,
        force=force,
        approve=approve,
        require_approval=require_approval,
        verdict=verdict,
        gate=gate,
    )


def _is_agreed(verdict: Verdict, approve: bool) -> bool:
    return verdict.decision is Decision.PROMOTE or (verdict.decision is Decision.ASK and approve)


def verdict_on(
    store: ReleaseStore,
    release_id: str,
    *,
    candidates: ReleaseStore | None = None,
    require_approval: bool = False,
    gate: Gate | None = None,
) -> Verdict:
    """Verifies a release by loading it as servers do, and compares it with the one in production.

    A verdict that was recorded for the current release in production is reused, but a refused
    release is judged again if there is a gate. New verdicts on published releases are recorded in
    the store.

    Args:
        store: The store.
        release_id: The release.
        candidates: The store that holds the release before it is published; None if it is
            published.
        require_approval: Whether a person must approve every release.
        gate: The gate; None for the installed one.

    Raises:
        ArtifactError: The release does not exist, this installation cannot verify it, or there is
            neither a gate nor a recorded verdict.
        OSError: A store cannot be read or written to.
    """
    holder = candidates or store
    manifest = holder.manifest(release_id)
    recorded = latest_verdict(holder.storage, manifest)
    verdict, loaded = None, _loaded_by_servers(holder, release_id)
    production_id = _production_id(store)
    if loaded.decision is Decision.REFUSE:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        verdict = Verdict.of(release_id, production_id, now, [loaded])
    else:
        gate = gate or _installed_gate()
        # A refused release may have been repaired since.
        if (
            recorded is not None
            and recorded.production_id == production_id
            and (gate is None or recorded.decision is not Decision.REFUSE)
        ):
            verdict = recorded
        elif gate is None:
            raise ArtifactError(
                f"{release_id} was not compared with the release in production, and the gate "
                "requires the extra `trainer`; --force promotes it without a comparison"
            )
        else:
            verdict = gate(store, release_id, holder).with_check(loaded)
        if require_approval and verdict.decision is Decision.PROMOTE:
            text = "every promotion must be approved"
            verdict = verdict.with_check(Check(APPROVAL, Decision.ASK, text))
    if candidates is None and verdict != recorded:
        record_verdict(store.storage, verdict)
    return verdict


def verify(store: ReleaseStore, release_id: str) -> Verification:
    """Loads a release in this process as the servers do, and checks it; see `verify_release`.

    Raises:
        ArtifactError: A server would refuse the release, or one of its answers is wrong.
        CannotVerifyError: This installation lacks packages that the servers need.
        OSError: The store cannot be read.
    """
    if "tensorflow" not in sys.modules:
        skip_keras()
    try:
        from marquee_services.cf.models import CF_SCORERS
        from marquee_services.inference.models import INFERENCE_SCORERS
        from marquee_services.standalone.verification import verify_release
    except ImportError as error:
        raise CannotVerifyError(
            f"to load a release as the servers do, install the extras gateway, cf and inference "
            f"({error})"
        ) from error
    from marquee_services.server.telemetry.logs import configure_logs

    configure_logs("verify", "text", "critical")
    return asyncio.run(
        verify_release(store, release_id, {CF: CF_SCORERS, INFERENCE: INFERENCE_SCORERS})
    )


def _loaded_by_servers(store: ReleaseStore, release_id: str) -> Check:
    """Verifies a release, and returns the result as a check.

    Raises:
        CannotVerifyError: This installation lacks packages that the servers need.
        OSError: The store cannot be read.
    """
    try:
        found = verify(store, release_id)
    except CannotVerifyError:
        raise
    except ArtifactError as error:
        return Check(SERVERS, Decision.REFUSE, f"they would refuse it: {error}")
    text = (
        f"they load it, answer {found.answers} requests, and {found.precomputed} precomputed pages "
        "agree with computed ones"
    )
    figures = {"answers": float(found.answers), "precomputed": float(found.precomputed)}
    return Check(SERVERS, Decision.PROMOTE, text, figures)


def _production_id(store: ReleaseStore) -> str:
    current = store.production()
    return "" if current is None else current.release_id


def _installed_gate() -> Gate | None:
    for entry in entry_points(group=_GROUP):
        try:
            return cast("Gate", entry.load())
        except ModuleNotFoundError:
            # The entry point is registered, but the extra's packages are not installed.
            continue
    return None
