"""Checks by paired tests that a candidate predicts and ranks as well as production."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from marquee_core.arrays import Float64
from marquee_core.release.derive import DERIVED
from marquee_core.release.verdict import Check, Decision
from marquee_trainer.gate.comparison import PairedFigures, compare
from marquee_trainer.gate.config import GateConfig
from marquee_trainer.gate.served_release import ServedRelease
from marquee_trainer.metrics.bootstrap import paired_bootstrap
from marquee_trainer.metrics.ranking_metrics import TOP

PROMOTE, ASK, REFUSE = Decision.PROMOTE, Decision.ASK, Decision.REFUSE


def quality_checks(
    candidate: ServedRelease, production: ServedRelease, config: GateConfig
) -> Iterator[Check]:
    """Compares ranking and predicted stars on the same held-out ratings, with a paired test.

    If too few users can be compared, the metrics in the two manifests are compared instead.
    """
    if candidate.held_out is None:
        text = "the release does not hold its evaluation"
        derived = candidate.manifest.evaluation.get(DERIVED)
        if isinstance(derived, dict):
            text = (
                f"its ranking weights come from {derived.get('why') or 'elsewhere'}, and were not "
                "evaluated on held-out ratings"
            )
        yield Check("comparison", ASK, text)
        return
    found = compare(candidate, production, config.min_users)
    if len(found.ndcg) < config.min_users:
        yield _compare_metrics(candidate, production, found, config)
        return
    pairs = np.array(found.ndcg)
    yield _paired("ranking", "NDCG@10", pairs[:, 0], pairs[:, 1], None, True, config)
    if candidate.predicts_stars and production.predicts_stars and found.squared_errors:
        errors = np.array(found.squared_errors)
        yield _paired("stars", "MSE", errors[:, 0], errors[:, 1], errors[:, 2], False, config)


def _paired(
    name: str,
    metric: str,
    candidate: Float64,
    production: Float64,
    weights: Float64 | None,
    higher_is_better: bool,
    config: GateConfig,
) -> Check:
    """A paired bootstrap over users of one metric."""
    test = paired_bootstrap(candidate, production, 0, weights, confidence=config.confidence)
    sign = 1.0 if higher_is_better else -1.0
    before = float(np.average(production, weights=weights))
    after = float(np.average(candidate, weights=weights))
    low, high = sorted((sign * test.difference.low, sign * test.difference.high))
    gain = sign * test.difference.mean
    scale = max(before, 1e-9)
    decision, verb = PROMOTE, "is as good as before"
    if low > 0:
        verb = "is better"
    elif high < 0 and gain < -config.refused_loss * scale:
        decision, verb = REFUSE, "is significantly worse"
    elif gain < -config.asked_loss * scale:
        decision, verb = ASK, "looks worse, possibly by chance"
    text = (
        f"{metric} {verb}: {after:.4f} against {before:.4f}, difference "
        f"{test.difference.mean:+.4f} ({config.confidence:.0%} interval "
        f"{test.difference.low:+.4f} to {test.difference.high:+.4f}, p = {test.p_value:.3g}) on "
        f"{len(candidate):,} users"
    )
    return Check(
        name,
        decision,
        text,
        {
            "candidate": after,
            "production": before,
            "difference": test.difference.mean,
            "low": test.difference.low,
            "high": test.difference.high,
            "p_value": test.p_value,
            "users": float(len(candidate)),
        },
    )


def _compare_metrics(
    candidate: ServedRelease, production: ServedRelease, found: PairedFigures, config: GateConfig
) -> Check:
    """Compares the metrics in the manifests, which were measured on different ratings."""
    after, before = (
        release.manifest.evaluation.get("ensemble_metrics", {})
        for release in (candidate, production)
    )
    few = f"only {len(found.ndcg)} users have ratings that both releases held out"
    metrics = {f"ndcg@{TOP}": 1.0, "test_rmse": -1.0}
    if candidate.scale != production.scale:
        # Errors are in units of the scale.
        del metrics["test_rmse"]
        few += "; errors on different rating scales are not compared"
    losses = {}
    for name, sign in metrics.items():
        if before.get(name) and name in after:
            losses[name] = sign * (before[name] - after[name]) / before[name]
    if not losses:
        return Check("comparison", ASK, f"{few}, and the evaluations have no metric in common")
    worst = max(losses, key=lambda name: losses[name])
    text = f"{few}; {worst} is {after[worst]:.4f}, and was {before[worst]:.4f} in production"
    decision = REFUSE if losses[worst] > config.metrics_loss else PROMOTE
    return Check("comparison", decision, text, losses)
