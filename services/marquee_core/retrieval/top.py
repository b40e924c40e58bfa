"""Selects the highest scores."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Float32, Int64

# From this number of scores on, blocks of `_BLOCK_SIZE` scores are compared by their maxima first.
_LARGE = 16_384
_BLOCK_SIZE = 256
# The block size of `top_rows`.
_ROW_BLOCK = 16
# With a mask, first select this many times `count` scores, and mask only those.
_SLACK = 4


def top_indexes(scores: NDArray[Any], count: int, eligible: Bool | None = None) -> Int64:
    """Returns the indexes of the highest scores, best first; of equal scores the lower index first.

    Args:
        scores: Scores (floating point, n); NaN is never selected.
        count: Number of indexes to return.
        eligible: True for the scores that may be selected (bool, n); None for all.

    Returns:
        Indexes (int64), fewer than `count` if fewer scores may be selected.
    """
    if count <= 0:
        return np.empty(0, np.int64)
    if len(scores) < max(_LARGE, 2 * _BLOCK_SIZE * _SLACK * count):
        return _best(scores, _usable(scores, eligible), count)
    if eligible is None:
        return _best(scores, _near_top(scores, count), count)
    # Usually most items are eligible. Then it is cheaper to select more than `count` scores and
    # mask those than to mask the whole catalogue.
    wide = _best(scores, _near_top(scores, _SLACK * count), _SLACK * count)
    selected = wide[eligible[wide]]
    if len(selected) >= count:
        return selected[:count]
    return _best(scores, _usable(scores, eligible), count)


def top_rows(scores: Float32, count: int, eligible: Bool | None = None) -> list[Int64]:
    """Returns the indexes of the highest scores of each row, as `top_indexes` does for one.

    Rows are compared by the maxima of short blocks first, for all rows at once.

    Args:
        scores: Scores (float32, rows × n); a row with NaN has no highest scores.
        count: Number of indexes to return for each row.
        eligible: True for the scores that may be selected (bool, rows × n); None for all.

    Returns:
        The indexes of each row, best first.
    """
    rows, size = scores.shape
    blocks = size // _ROW_BLOCK
    if count <= 0 or not rows:
        return [np.empty(0, np.int64)] * rows
    usable = scores if eligible is None else np.where(eligible, scores, np.float32(-np.inf))
    if blocks < 2 * count:
        return [
            top_indexes(row, count, None if eligible is None else eligible[place])
            for place, row in enumerate(scores)
        ]
    # At least `count` blocks have a maximum of `bound` or more, so the best scores do as well.
    maxima = usable[:, : blocks * _ROW_BLOCK].reshape(rows, _ROW_BLOCK, blocks).max(axis=1)
    bound = np.partition(maxima, blocks - count, axis=1)[:, blocks - count]
    near = usable >= bound[:, None]
    near &= usable > -np.inf
    found_rows, found = np.nonzero(near)
    ends = np.searchsorted(found_rows, np.arange(rows + 1))
    return [
        _best(usable[row], found[start:end], count)
        for row, (start, end) in enumerate(pairwise(ends.tolist()))
    ]


def _usable(scores: NDArray[Any], eligible: Bool | None) -> Int64:
    usable = ~np.isnan(scores)
    if eligible is not None:
        usable &= eligible
    return np.flatnonzero(usable)


def _near_top(scores: NDArray[Any], count: int) -> Int64:
    """Returns the indexes of the blocks with the highest maxima, which contain the best scores.

    Each of the `count` best scores is in a block whose maximum is among the `count` highest
    maxima. The blocks are strided, so that NumPy computes their maxima over contiguous rows.
    """
    blocks = len(scores) // _BLOCK_SIZE
    rows = scores[: blocks * _BLOCK_SIZE].reshape(_BLOCK_SIZE, blocks)
    maxima = rows.max(axis=0)
    # A block with a NaN has the maximum NaN; such blocks are always included.
    unknown = np.isnan(maxima)
    maxima[unknown] = np.inf
    highest = count + int(unknown.sum())
    if highest >= blocks:
        return _usable(scores, None)
    near = np.flatnonzero(maxima >= np.partition(maxima, blocks - highest)[blocks - highest])
    inside = (near[:, None] + np.arange(0, rows.size, blocks)).ravel()
    pool = np.concatenate([inside, np.arange(rows.size, len(scores))])
    usable: Int64 = pool[~np.isnan(scores[pool])]
    return usable


def _best(scores: NDArray[Any], pool: Int64, count: int) -> Int64:
    """Returns the best indexes of a pool, best first."""
    values = scores[pool]
    if count < len(pool):
        bound = np.partition(values, len(pool) - count)[len(pool) - count]
        # Keep all scores equal to the last selected one; the sort below orders them by index.
        near = values >= bound
        pool, values = pool[near], values[near]
    return pool[np.lexsort((pool, -values))][:count]
