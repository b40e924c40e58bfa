"""Ranks the first pages that a release holds, by the steps that the gateway takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Float32
from marquee_core.catalogue import Vocabulary
from marquee_core.release.ensemble import BASELINE, Ensemble
from marquee_core.scorers.scorer import ReleaseData
from marquee_services.gateway.answering.messages import recommended_items
from marquee_services.gateway.ranking.pages import cut_page
from marquee_services.gateway.ranking.scored import Scored
from marquee_services.gateway.releases.precomputed import FirstPages
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
) -> FirstPages:
    """Ranks the unseen items of known users with the whole ensemble.

    Users of whom a model abstains have none, and are answered as they come.

    Args:
        data: What the models were fitted on.
        items: The items' ids.
        models: All models of the release, in the manifest's order, the gateway's own among them.
        ensemble: Their blends.
        scale: The lowest and highest rating, in stars.
        config: Whose.
    """
    counts = np.diff(data.matrix.indptr)
    most = np.argsort(-counts, kind="stable")[: config.users]
    users = np.sort(most[counts[most] > 0]).astype(np.int32)
    if data.matrix.item_count > config.items or not len(users):
        return FirstPages.none(data.matrix.user_count)
    backends = frozenset(model.backend for model in models) - {"gateway"}
    blends = ensemble.blends(sorted(backends))
    pages = [b""] * data.matrix.user_count
    block = max(1, config.cells // data.matrix.item_count)
    for first in range(0, len(users), block):
        some = users[first : first + block]
        profiles = data.matrix.profiles(some)
        outputs = {
            model.name: model.scorer.score(profiles)
            for model in models
            if model.name in blends.models() or model.name == BASELINE
        }
        for row, user in enumerate(some.tolist()):
            own = {name: scores[row] for name, scores in outputs.items()}
            scored = Scored(None, own, blends, backends, scale, (), ())
            pages[user] = _page(user, scored, data, items)
    return FirstPages.of(pages)


def _page(user: int, scored: Scored, data: ReleaseData, items: Vocabulary) -> bytes:
    """One user's page; empty when a model abstains."""
    if any(np.isnan(scores[0]) for scores in scored.outputs.values()):
        return b""
    eligible = np.ones(data.matrix.item_count, dtype=np.bool_)
    eligible[data.matrix.seen(user)] = False
    none: Float32 = np.empty((0, 0), np.float32)
    page = cut_page(scored, eligible, None, 0.0, none, 0, DEFAULT_PAGE_SIZE)
    return pb.RecommendResponse(
        subject_kind=types_pb2.SUBJECT_KIND_KNOWN,
        items=recommended_items(
            items.ids(page.places),
            scored.ranking[page.places],
            scored.stars[page.places],
            scored.proposers(page.places, page.eligible, DEFAULT_PAGE_SIZE),
            1,
        ),
    ).SerializeToString()
