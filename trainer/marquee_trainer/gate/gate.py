"""The gate: decides whether a release may replace the one in production."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from marquee_core.errors import ArtifactError
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_trainer.gate.config import GateConfig
from marquee_trainer.gate.consistency import consistency_checks
from marquee_trainer.gate.drift import RatingsSummary, drift_checks
from marquee_trainer.gate.quality import quality_checks
from marquee_trainer.gate.sanity import sanity_checks
from marquee_trainer.gate.served_release import ServedRelease


def judge(
    store: ReleaseStore,
    release_id: str,
    candidates: ReleaseStore | None = None,
    config: GateConfig | None = None,
) -> Verdict:
    """Judges a release against the one in production.

    Without a release in production, only the release itself is checked.

    Args:
        store: The store of the release in production.
        release_id: The release that is to be promoted.
        candidates: The store of that release, if it is not published yet; None for the same store.
        config: The thresholds; None for the default.

    Returns:
        The verdict. A release that is damaged or cannot be loaded is refused.

    Raises:
        ArtifactError: The release does not exist, or the file that names the one in production is
            damaged.
        OSError: The store cannot be read or written to.
    """
    config = config or GateConfig()
    candidates = candidates or store
    candidates.manifest(release_id)
    current = store.production()
    production_id = current.release_id if current is not None else ""
    if production_id == release_id:
        production_id = ""
    with tempfile.TemporaryDirectory(prefix="marquee-gate-") as name:
        try:
            candidate = ServedRelease.load(candidates, release_id, Path(name))
        except ArtifactError as error:
            checks = [Check("release", Decision.REFUSE, f"it cannot be loaded: {error}")]
        else:
            checks = list(_checks(candidate, store, production_id, config, Path(name)))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Verdict.of(release_id, production_id, now, checks)


def _checks(
    candidate: ServedRelease,
    store: ReleaseStore,
    production_id: str,
    config: GateConfig,
    cache: Path,
) -> Iterator[Check]:
    production = None
    if production_id:
        try:
            production = ServedRelease.load(store, production_id, cache)
        except ArtifactError as error:
            # Servers that have loaded it continue to serve it, but nothing can be compared with it.
            yield Check("production", Decision.ASK, f"{production_id} cannot be loaded: {error}")
    if production is not None:
        if candidate.predicts_stars != production.predicts_stars:
            text = "one of the two was trained on ratings and the other on implicit feedback"
            yield Check("feedback", Decision.ASK, text)
        else:
            yield from drift_checks(_summary(candidate), _summary(production), config)
    users = int(np.count_nonzero(np.diff(candidate.data.matrix.indptr)))
    if users < config.min_users:
        yield Check("size", Decision.PROMOTE, f"{users} users are too few to judge what is served")
        return
    served = list(sanity_checks(candidate, production, config))
    yield from served
    if any(check.name == "finite" and check.decision is Decision.REFUSE for check in served):
        return
    yield from consistency_checks(candidate, config)
    if production is not None:
        yield from quality_checks(candidate, production, config)


def _summary(release: ServedRelease) -> RatingsSummary:
    matrix = release.data.matrix
    return RatingsSummary(
        matrix.ratings,
        int(np.count_nonzero(np.diff(matrix.indptr))),
        int(np.count_nonzero(matrix.item_counts)),
        *release.scale,
    )
