"""Similarity of items by genres, attributes and year, for items without ratings."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.attributes import Attributes
from marquee_core.catalogue import Catalogue

# The similarity halves for each such difference between the years.
_YEARS = 20.0
# Longer values are texts such as plots, which are hardly ever equal.
_MAX_VALUE_BYTES = 200


def content_similarities(catalogue: Catalogue, attributes: Attributes, item: int) -> Float32:
    """Returns the similarity of an item to every item by genres, equal attributes and year.

    A genre or value f of n_f among N items has the weight w_f = log(N / n_f), so rare ones count
    more. The similarity is Σ w_f over the genres and values that both items have, divided by
    √(G_i G_j) + A_i. G is the total weight of an item's genres, and A_i the total weight of the
    given item's values that other items have too. If both years are known, the similarity halves
    for every 20 years between the items.

    Args:
        catalogue: The items.
        attributes: The items' attributes.
        item: The item's index.

    Returns:
        Values from 0 to 1 (float32, items); 0 for the item itself.
    """
    genres = catalogue.genre_matrix()
    weights = np.log(len(catalogue) / np.maximum(1, genres.sum(axis=0)))
    of_item = genres[item] * weights
    common: Float64 = genres @ of_item
    scale: Float64 = np.sqrt((genres @ weights) * of_item.sum())
    for position in range(*attributes.item_offsets[item : item + 2].tolist()):
        others = _items_with(attributes, position)
        if len(others) > 1:
            weight = np.log(len(catalogue) / len(others))
            common[others] += weight
            scale += weight
    years = catalogue.years.astype(np.float64)
    if years[item]:
        gap = np.where(years > 0, np.abs(years - years[item]), 0.0)
        common *= 0.5 ** (gap / _YEARS)
    similarity = common / np.where(scale > 0, scale, 1.0)
    similarity[item] = 0.0
    return np.clip(similarity, 0.0, 1.0).astype(np.float32)


def _items_with(attributes: Attributes, position: int) -> Int32:
    """Returns the items that have the same attribute value as the one at a position."""
    start, end = attributes.value_offsets[position : position + 2].tolist()
    if end - start > _MAX_VALUE_BYTES:
        return np.empty(0, dtype=np.int32)
    same_name = np.flatnonzero(attributes.value_names == attributes.value_names[position])
    starts = attributes.value_offsets[same_name]
    same_length = attributes.value_offsets[same_name + 1] - starts == end - start
    positions, starts = same_name[same_length], starts[same_length]
    texts = attributes.text[starts[:, None] + np.arange(end - start)]
    equal = positions[(texts == attributes.text[start:end]).all(axis=1)]
    items: Int32 = (np.searchsorted(attributes.item_offsets, equal, side="right") - 1).astype(
        np.int32
    )
    return items
