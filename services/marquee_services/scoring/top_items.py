"""Selects each model's own best items, and a user's best items by the whole ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.retrieval.top import TopRows, top_rows
from marquee_services.scoring.plan import TopItems


def own_best(shown: Float32, abstains: Bool, count: int) -> list[TopRows]:
    """Returns the best items of each model for each user.

    A model that abstains, or gives several items of a user all the same score, has no best items.

    Args:
        shown: The scores of each model, −∞ where an item is hidden (float32, models × B × C).
        abstains: Whether each model cannot score each user (bool, models × B).
        count: The maximum number of best items.
    """
    models, users, width = shown.shape
    scores = shown.reshape(-1, width)
    top = top_rows(scores, count)
    if top.indexes.size:
        rows, last = np.arange(len(scores)), np.maximum(top.counts - 1, 0)
        is_level = scores[rows, top.indexes[:, 0]] == scores[rows, top.indexes[rows, last]]
        for row in np.flatnonzero(is_level).tolist():
            if top.counts[row] and _is_flat(scores[row]):
                top.counts[row] = 0
        if abstains.any():
            top.counts[abstains.reshape(-1)] = 0
    indexes, counts = top.indexes.reshape(models, users, -1), top.counts.reshape(models, users)
    return [TopRows(*own) for own in zip(indexes, counts, strict=True)]


def _is_flat(scores: Float32) -> bool:
    """Returns whether there are several scores above −∞, and all of them are equal."""
    finite = scores[scores > -np.inf]
    return len(finite) > 1 and bool(finite.min() == finite.max())


def proposers_of(own: Sequence[TopRows], width: int) -> Int32:
    """Returns the models that have each item among their own best items, as bits.

    See `TopItems.proposers` (int32, B × width).

    Args:
        own: The best items of each model, at most `MAX_TOP_MODELS`.
        width: The number of ranked items.
    """
    proposers = np.zeros((len(own[0]), width), dtype=np.int32)
    rows = np.arange(len(proposers))[:, None]
    for bit, best in enumerate(own):
        # Rows are padded with their first item, which is harmless unless a row is empty.
        if best.counts.all():
            proposers[rows, best.indexes] |= 1 << bit
        else:
            found = best.counts > 0
            proposers[rows[found], best.indexes[found]] |= 1 << bit
    return proposers


def top_items(
    top: TopRows,
    items: Int32 | None,
    limits: Sequence[int],
    sums: Float32,
    proposers: Int32,
    biases: Float32,
) -> list[TopItems]:
    """Returns the best items of each of B users by the whole ranking.

    Args:
        top: The positions of the best items.
        items: The ranked items (int32, C); None for the whole catalogue.
        limits: The maximum number of items of each user.
        sums: The weighted sum of the models' scores of each item (float32, B × C).
        proposers: From `proposers_of` (int32, B × C).
        biases: Each user's bias in the baseline, in stars (float32, B).
    """
    rows = np.arange(len(sums))[:, None]
    scores, models = sums[rows, top.indexes], proposers[rows, top.indexes]
    best = top.indexes if items is None else items[top.indexes]
    counts = np.minimum(top.counts, limits).tolist()
    return [
        TopItems(best[row, :count], scores[row, :count], models[row, :count], bias)
        for row, (count, bias) in enumerate(zip(counts, biases.tolist(), strict=True))
    ]
