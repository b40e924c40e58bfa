"""The gateway's own models, and the neutral scores that replace those of abstaining models."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int32
from marquee_core.output import Output
from marquee_core.release.ensemble import BASELINE, GATEWAY_MODELS, Blend
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import top_indexes
from marquee_services.gateway.ranking.filters import EligibleItems
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease


def own_outputs(
    release: GatewayRelease,
    subject: ResolvedSubject,
    items: Int32 | None,
    names: Collection[str] = GATEWAY_MODELS,
) -> dict[str, Float32]:
    """Returns the scores of the gateway's own models, by the model's name.

    Args:
        release: The release that scores.
        subject: The subject, resolved with that release.
        items: The items to score (int32, C); None for the whole catalogue.
        names: The names of the models; the baseline's scores are always returned.

    Returns:
        The scores of each model (float32, C).
    """
    outputs = {
        name: scores if items is None else scores[items]
        for name, scores in release.own_scores.items()
        if name in names or name == BASELINE
    }
    outputs[BASELINE] = outputs[BASELINE] + subject.bias
    return outputs


def own_ranking(
    release: GatewayRelease,
    subject: ResolvedSubject,
    items: Int32 | None,
    blend: Blend,
    abstaining: Collection[str],
) -> Float64:
    """Returns the gateway's part of the ranking scores, to which the backends' sums are added.

    It consists of the intercept, the gateway's own models, and the baseline's ratings in place of
    each rating predictor that abstains. A ranker that abstains counts as 0.

    Args:
        release: The release that scores.
        subject: The subject, resolved with that release.
        items: The candidates (int32, C); None for the whole catalogue.
        blend: The ranking blend.
        abstaining: The models of the blend that cannot score the subject.

    Returns:
        The scores (float64, C), which the caller may modify.
    """
    shared = release.shared_ranking(blend)
    total: Float64 = shared.copy() if items is None else shared[items]
    weight = blend.weights.get(BASELINE, 0.0)
    if weight:
        total += weight * subject.bias
    for name in abstaining:
        if name in release.stars_models:
            own = release.own_scores[BASELINE]
            own = own if items is None else own[items]
            total += blend.weights[name] * (own + subject.bias)
    return total


def own_best(
    release: GatewayRelease,
    subject: ResolvedSubject,
    blend: Blend,
    items: Int32 | None,
    eligible: EligibleItems,
    count: int,
) -> dict[str, Found]:
    """Returns the best items of the gateway's own models that have a weight in the ranking.

    The order of the whole catalogue by these models is the same for all subjects, so each release
    is sorted only once.

    Args:
        release: The release that scores.
        subject: The subject, resolved with that release.
        blend: The ranking blend.
        items: The candidates (int32, C); None for the whole catalogue.
        eligible: The items that may be among the best; all candidates are eligible.
        count: The maximum number of best items of each model.

    Returns:
        The best items of each model and their scores, by the model's name.
    """
    best = {}
    for name in blend.weights:
        if name not in release.own_scores:
            continue
        scores = release.own_scores[name]
        shift = subject.bias if name == BASELINE else np.float32(0)
        if items is None:
            top, is_flat = best_in_order(release.orders[name], scores, eligible.mask, count)
            best[name] = (top[:0], scores[:0]) if is_flat else (top, scores[top] + shift)
        else:
            scores = scores[items] + shift
            is_flat = not len(scores) or (len(scores) > 1 and scores.min() == scores.max())
            chosen = top_indexes(scores, 0 if is_flat else count)
            best[name] = items[chosen], scores[chosen]
    return best


def best_in_order(order: Int32, scores: Float32, eligible: Bool, count: int) -> tuple[Int32, bool]:
    """Returns the first eligible items of an order, and whether the model prefers none of them.

    It prefers none if there are none, or if there are several with equal scores.

    Args:
        order: All items, the best first (int32, items).
        scores: The scores by which the items are ordered (float32, items).
        eligible: Whether each item may be among the best (bool, items).
        count: The maximum number of best items.
    """
    # Usually, enough of the first items are eligible, and their scores differ.
    first = order[: 8 * count]
    top = first[eligible[first]]
    if len(top) < count or not len(top) or scores[top[0]] == scores[top[-1]]:
        top = order[eligible[order]]
    is_flat = not len(top) or (len(top) > 1 and bool(scores[top[0]] == scores[top[-1]]))
    return top[:count], is_flat


def replace_abstentions(
    outputs: dict[str, Float32], models: Collection[str], release: GatewayRelease
) -> list[str]:
    """Replaces the NaN scores of abstaining models with neutral scores.

    A rating predictor gets the baseline's ratings; a ranker gets zeros.

    Args:
        outputs: The scores of each model by name, which are modified in place (float32, C).
        models: The names of the models to check; models without scores are skipped.
        release: The release of the models.

    Returns:
        The names of the models that abstain.
    """
    abstaining = []
    for name in models:
        scores = outputs.get(name)
        # Only NaN is not equal to itself.
        if scores is not None and len(scores) and scores[0] != scores[0]:
            abstaining.append(name)
            is_stars = release.model(name).output is Output.STARS
            outputs[name] = outputs[BASELINE] if is_stars else np.zeros_like(outputs[BASELINE])
    return abstaining
