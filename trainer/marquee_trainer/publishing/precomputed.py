"""Precomputes the first pages of a release, with the gateway's own ranking code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Bool, Float32
from marquee_core.catalogue import Vocabulary
from marquee_core.release.ensemble import BASELINE, BlendPair, Ensemble
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.answering.item_bytes import serialized_items
from marquee_services.gateway.ranking.pages import cut_page
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.releases.precomputed import PrecomputedPages
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_trainer.models.model import Model
from marquee_trainer.publishing.config import PrecomputeConfig


def precompute_pages(
    data: ReleaseData,
    items: Vocabulary,
    models: Sequence[Model],
    ensemble: Ensemble,
    scale: tuple[float, float],
    config: PrecomputeConfig,
) -> PrecomputedPages:
    """Ranks the unseen items of the most active users with the full ensemble.

    A user for whom any model abstains gets no page; the gateway computes that page on request.

    Args:
        data: The ratings that the models were fitted on.
        items: The item ids.
        models: All models of the release in the manifest's order, including those of the gateway.
        ensemble: The blends of the models.
        scale: The lowest and highest rating, in stars.
        config: The number of users and the largest catalogue for which pages are precomputed.
    """
    counts = np.diff(data.matrix.indptr)
    most_active = np.argsort(-counts, kind="stable")[: config.users]
    users = np.sort(most_active[counts[most_active] > 0]).astype(np.int32)
    if data.matrix.item_count > config.max_items or not len(users):
        return PrecomputedPages.none(data.matrix.user_count)
    backends = frozenset(model.backend for model in models) - {GATEWAY}
    blends = ensemble.blends(sorted(backends))
    pages = [b""] * data.matrix.user_count
    block_users = max(1, config.block_scores // data.matrix.item_count)
    for first in range(0, len(users), block_users):
        block = users[first : first + block_users]
        profiles = data.matrix.profiles(block)
        outputs = {
            model.name: model.scorer.score(profiles)
            for model in models
            if model.name in blends.models() or model.name == BASELINE
        }
        for row, user in enumerate(block.tolist()):
            user_outputs = {name: scores[row] for name, scores in outputs.items()}
            pages[user] = _page(user, user_outputs, blends, scale, data, items)
    return PrecomputedPages.of(pages)


def _page(
    user: int,
    outputs: Mapping[str, Float32],
    blends: BlendPair,
    scale: tuple[float, float],
    data: ReleaseData,
    items: Vocabulary,
) -> bytes:
    """Serialises one user's first page; empty if a model abstains.

    Args:
        user: The user's index.
        outputs: The scores of each model by name (float32, items).
        blends: The blends of the whole ensemble.
        scale: The lowest and highest rating, in stars.
        data: The ratings that the models were fitted on.
        items: The item ids.
    """
    if any(np.isnan(scores[0]) for scores in outputs.values()):
        return b""
    eligible = data.matrix.item_counts > 0
    eligible[data.matrix.seen(user)] = False
    ranked = RankedCandidates(
        None,
        blends.ranking.apply(outputs),
        {name: _best(outputs[name], eligible) for name in blends.ranking.weights},
        DEFAULT_PAGE_SIZE,
        blends,
        frozenset(),
    )
    # Item vectors are used for diversification only, which plain requests do not use.
    no_vectors: Float32 = np.empty((0, 0), np.float32)
    page = cut_page(ranked, eligible, 0.0, no_vectors, 0, DEFAULT_PAGE_SIZE)
    shown = {name: scores[page.positions] for name, scores in outputs.items()}
    kind = pb.RecommendResponse(subject_kind=types_pb2.SUBJECT_KIND_KNOWN)
    return kind.SerializeToString() + serialized_items(
        items.encoded_ids(page.positions),
        ranked.scores[page.positions],
        ScoredCandidates(shown, blends, scale, (), ()).stars if blends.rating.weights else None,
        ranked.proposers(page.positions),
        1,
    )


def _best(scores: Float32, eligible: Bool) -> Found:
    """A single model's best items; none if it gives all eligible items the same score."""
    pool = scores[eligible]
    is_flat = not len(pool) or pool.min() == pool.max()
    top = top_indexes(scores, 0 if is_flat else DEFAULT_PAGE_SIZE, eligible)
    return top.astype(np.int32), scores[top]
