"""The similarities of an item to the most similar items of a catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.retrieval.top import top_indexes
from marquee_services.errors import FieldViolation, InvalidFields
from marquee_services.scoring.engine import Engine

# Shrinks the similarity of an item with n ratings to similarity · n / (n + _SHRINKAGE).
_SHRINKAGE = 20.0


@dataclass(frozen=True)
class Comparison:
    """A request for an item's similarities.

    Attributes:
        item: The item's index.
        count: The maximum number of items for each model, those with the highest similarities after
            shrinkage; 0 for all items of the catalogue.
        eligible: Whether each item may be among them (bool, items); None to allow all.
        candidates: The items to compare with instead (int32, n); None for none.
    """

    item: int
    count: int = 0
    eligible: Bool | None = None
    candidates: Int32 | None = None


@dataclass(frozen=True)
class Similarities:
    """An item's similarities by one model.

    Attributes:
        items: The most similar items, or the candidates (int32, n); None for all items of the
            catalogue.
        values: The similarity to each of these items, from -1 to 1 (float32, n).
        highest: The highest absolute similarity to another item, times the item's
            `shrinkage`; 0 unless the most similar items were requested.
    """

    items: Int32 | None
    values: Float32
    highest: float = 0.0


def shrinkage(rating_counts: np.ndarray) -> Float32:
    """Returns the factor by which similarities to items are shrunk towards 0 (float32, n).

    The factors of items with few ratings are mostly noise.

    Args:
        rating_counts: The number of training ratings of each item (integers, n).
    """
    return (rating_counts / (rating_counts + _SHRINKAGE)).astype(np.float32)


def similarities_of(engine: Engine, comparison: Comparison) -> dict[str, Similarities]:
    """Returns an item's similarities by each model that compares items, by the model's name.

    Raises:
        InvalidFields: An item has no such index.
    """
    candidates = comparison.candidates
    count = engine.data.matrix.item_count
    if candidates is not None and (candidates < 0).any() | (candidates >= count).any():
        raise InvalidFields([FieldViolation("candidates", "no item has this index")])
    found = {}
    for name, row in engine.compare(comparison.item).items():
        if candidates is not None:
            found[name] = Similarities(candidates, row[candidates])
            continue
        if not comparison.count:
            found[name] = Similarities(None, row)
            continue
        shrunk = row * shrinkage(engine.rating_counts)
        shrunk[comparison.item] = 0.0
        best = top_indexes(shrunk, comparison.count, comparison.eligible).astype(np.int32)
        highest = max(float(shrunk.max()), -float(shrunk.min()))
        found[name] = Similarities(best, row[best], highest)
    return found
