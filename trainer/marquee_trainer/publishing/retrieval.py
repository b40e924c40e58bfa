"""Chooses how candidates are generated from a large catalogue, and measures the recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.release.manifest import ANN, EXACT
from marquee_core.retrieval.ann import AnnConfig, AnnIndex
from marquee_core.retrieval.exact import ExactIndex, ScoresByProduct, item_products
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.publishing.config import AUTO, RetrievalConfig

RECALL_DEPTH = 100
# The number of lists as a multiple of the square root of the number of items.
_LISTS_FACTOR = 4


@dataclass(frozen=True)
class Retrieval:
    """How candidates of one model are generated.

    Attributes:
        index: The approximate index; None for exact retrieval.
        entry: The manifest's record of the choice; see `ModelEntry.retrieval`.
    """

    index: AnnIndex | None = None
    entry: dict[str, Any] = field(default_factory=lambda: {"kind": EXACT})


def choose_retrieval(
    scorer: Scorer, data: ReleaseData, config: RetrievalConfig, seed: int
) -> Retrieval:
    """Builds an approximate index that reaches the target recall, or falls back to exact search.

    If the best index found misses the target, `ann` uses it nevertheless, while `auto` rejects it
    and records its recall in the manifest.

    Args:
        scorer: The scorer of the fitted model. If its scores are not inner products, search is
            exact.
        data: The ratings that it was fitted on.
        config: The target recall and the limits of the search.
        seed: Seed of the sample of users and of the clustering.

    Raises:
        ImportError: An approximate index is to be built, and Faiss is not installed.
    """
    items = item_products(scorer)
    rated = np.flatnonzero(np.diff(data.matrix.indptr))
    is_small = config.kind == AUTO and data.matrix.item_count < config.ann_items
    if items is None or config.kind == EXACT or is_small or not len(rated):
        return Retrieval()
    assert isinstance(scorer, ScoresByProduct)  # noqa: S101 - it has item products
    random = np.random.default_rng(seed)
    users = random.permutation(rated)[: 2 * config.users]
    measured, typical = (
        scorer.user_products(data.matrix.profiles(np.sort(part)))
        for part in (users[: config.users], users[-config.users :])
    )
    best = exact_best(items, measured)
    # With √n lists, finding the centroids would cost as much as scanning one list. More and smaller
    # lists reach the same recall with fewer scanned items.
    lists = max(1, 1 << round(np.log2(_LISTS_FACTOR * np.sqrt(len(items)))))
    initial = AnnConfig(lists, max(1, int(lists * config.initial_probe_share)))
    training_items = config.training_items_per_list * lists
    index = AnnIndex.build(items, initial, training_items, seed, typical)
    recall = recall_of(index, best, measured)
    while (
        recall < config.target_recall and 2 * index.config.probes <= lists * config.max_probe_share
    ):
        index = index.with_probes(2 * index.config.probes)
        recall = recall_of(index, best, measured)
    # Bisect between the last number of probes that was too small and the current one.
    too_few = index.config.probes // 2
    for _ in range(config.refinements if recall >= config.target_recall else 0):
        smaller = index.with_probes((too_few + index.config.probes) // 2)
        smaller_recall = recall_of(smaller, best, measured)
        if smaller_recall >= config.target_recall:
            index, recall = smaller, smaller_recall
        else:
            too_few = smaller.config.probes
    entry = {"parameters": asdict(index.config), "recall_at_100": recall}
    if recall < config.target_recall and config.kind == AUTO:
        return Retrieval(None, {"kind": EXACT, "rejected": entry})
    return Retrieval(index, {"kind": ANN, **entry})


def exact_best(items: Float32, vectors: Float32) -> list[Int32]:
    """The 100 best items of each user by exact search, best first: the reference for recall.

    Args:
        items: The item vectors (float32, items × d).
        vectors: The user vectors (float32, U × d).

    Returns:
        Item indexes of each user (int32, 100 each, or the whole catalogue if it is smaller).
    """
    depth = min(RECALL_DEPTH, len(items))
    return [best for best, _ in ExactIndex(items).search(vectors, depth, None)]


def recall_of(index: AnnIndex, best: Sequence[Int32], vectors: Float32) -> float:
    """The mean share of the exact best items that an index finds.

    Args:
        index: The approximate index.
        best: The result of `exact_best`, one array for each user (U).
        vectors: The user vectors (float32, U × d).
    """
    found = index.search(vectors, len(best[0]), None)
    shares = [
        len(np.intersect1d(exact, approximate)) / len(exact)
        for exact, (approximate, _) in zip(best, found, strict=True)
    ]
    return float(np.mean(shares))
