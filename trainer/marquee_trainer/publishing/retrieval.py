"""Chooses how a model's best items are found in a large catalogue, and measures it."""

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

AUTO = "auto"
KINDS = (AUTO, EXACT, ANN)
RECALL_DEPTH = 100


@dataclass(frozen=True)
class RetrievalConfig:
    """How items are retrieved.

    Attributes:
        kind: `exact`, `ann`, or `auto`: approximate for catalogues from `ann_items` on.
        ann_items: The smallest catalogue that `auto` retrieves from approximately.
        recall: ScoreOptions recall@100 against exact retrieval.
        users: On so many random users it is measured.
        training_items_per_list: So many items for each list teach the centroids.
        first_share: The first share of the lists that is tried; it doubles up to `last_share`.
        last_share: Where looking at more lists no longer pays.
        refinements: How often the number of lists is then halved towards what is needed.
    """

    kind: str = AUTO
    ann_items: int = 200_000
    recall: float = 0.95
    users: int = 256
    training_items_per_list: int = 40
    first_share: float = 1 / 128
    last_share: float = 1 / 4
    refinements: int = 3


@dataclass(frozen=True)
class Retrieval:
    """What was chosen.

    Attributes:
        index: The approximate index; None for exact retrieval.
        entry: What the manifest says of it; see `ModelEntry.retrieval`.
    """

    index: AnnIndex | None = None
    entry: dict[str, Any] = field(default_factory=lambda: {"kind": EXACT})


def choose_retrieval(
    scorer: Scorer, data: ReleaseData, config: RetrievalConfig, seed: int
) -> Retrieval:
    """An approximate index with the recall that is wanted, or exact retrieval.

    Args:
        scorer: The model.
        data: What it was trained on.
        config: How.
        seed: Of the users and of the clustering.

    Raises:
        ImportError: Faiss is needed and not installed.
    """
    items = item_products(scorer)
    rated = np.flatnonzero(np.diff(data.matrix.indptr))
    small = config.kind == AUTO and data.matrix.item_count < config.ann_items
    if items is None or config.kind == EXACT or small or not len(rated):
        return Retrieval()
    assert isinstance(scorer, ScoresByProduct)  # noqa: S101 - it has item products
    random = np.random.default_rng(seed)
    users = random.permutation(rated)[: config.users]
    vectors = scorer.user_products(data.matrix.profiles(np.sort(users)))
    best = exact_best(items, vectors)
    # About √n lists balance the search of the centroids with that of the lists.
    lists = max(1, 1 << round(np.log2(np.sqrt(len(items)))))
    first = AnnConfig(lists, max(1, int(lists * config.first_share)))
    index = AnnIndex.build(items, first, config.training_items_per_list * lists, seed)
    recall = recall_of(index, best, vectors)
    while recall < config.recall and 2 * index.config.probes <= lists * config.last_share:
        index = index.with_probes(2 * index.config.probes)
        recall = recall_of(index, best, vectors)
    # Between half as many lists, which were too few, and these.
    low = index.config.probes // 2
    for _ in range(config.refinements if recall >= config.recall else 0):
        fewer = index.with_probes((low + index.config.probes) // 2)
        found = recall_of(fewer, best, vectors)
        if found >= config.recall:
            index, recall = fewer, found
        else:
            low = fewer.config.probes
    entry = {"parameters": asdict(index.config), "recall_at_100": recall}
    if recall < config.recall and config.kind == AUTO:
        return Retrieval(None, {"kind": EXACT, "rejected": entry})
    return Retrieval(index, {"kind": ANN, **entry})


def exact_best(items: Float32, vectors: Float32) -> list[Int32]:
    """The 100 best items of each user, which recall is measured against (int32, 100 each).

    Args:
        items: The item vectors (float32, items × d).
        vectors: Users' vectors (float32, U × d).
    """
    depth = min(RECALL_DEPTH, len(items))
    return [best for best, _ in ExactIndex(items).search(vectors, depth, None)]


def recall_of(index: AnnIndex, best: Sequence[Int32], vectors: Float32) -> float:
    """The mean share of the best items that an index finds.

    Args:
        index: The index.
        best: What `exact_best` found (U).
        vectors: Users' vectors (float32, U × d).
    """
    found = index.search(vectors, len(best[0]), None)
    shares = [
        len(np.intersect1d(wanted, near)) / len(wanted)
        for wanted, (near, _) in zip(best, found, strict=True)
    ]
    return float(np.mean(shares))
