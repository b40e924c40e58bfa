"""The best of many scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Int64

# Catalogues from this size on are first looked at by blocks, of so many scores each.
_LARGE = 16_384
_BLOCK = 256
# How many times more scores are looked at before those that do not qualify are masked.
_SLACK = 4


def top_indexes(scores: NDArray[Any], count: int, eligible: Bool | None = None) -> Int64:
    """The indexes of the highest scores, best first; among equals the lower index first.

    Args:
        scores: Scores (floating, n); NaN never qualifies.
        count: How many are wanted.
        eligible: Which qualify (bool, n); None for all.

    Returns:
        Indexes (int64), fewer than `count` when fewer qualify.
    """
    if count <= 0:
        return np.empty(0, np.int64)
    if len(scores) < max(_LARGE, 2 * _BLOCK * _SLACK * count):
        return _best(scores, _usable(scores, eligible), count)
    if eligible is None:
        return _best(scores, _near_top(scores, count), count)
    # Most catalogues qualify for the most part: copying one to mask it costs more than a look
    # at somewhat more than the best.
    wide = _best(scores, _near_top(scores, _SLACK * count), _SLACK * count)
    kept = wide[eligible[wide]]
    if len(kept) >= count:
        return kept[:count]
    return _best(scores, _usable(scores, eligible), count)


def _usable(scores: NDArray[Any], eligible: Bool | None) -> Int64:
    usable = ~np.isnan(scores)
    if eligible is not None:
        usable &= eligible
    return np.flatnonzero(usable)


def _near_top(scores: NDArray[Any], count: int) -> Int64:
    """Indexes that the best are among: those of the blocks with the highest maxima.

    Whatever is among the `count` best lies in a block whose maximum is among the `count` highest
    maxima. Blocks are strided, so that their maxima are taken of contiguous rows.
    """
    blocks = len(scores) // _BLOCK
    rows = scores[: blocks * _BLOCK].reshape(_BLOCK, blocks)
    maxima = rows.max(axis=0)
    # A NaN makes its block's maximum NaN; such blocks are looked at besides.
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
    """The best of a pool of indexes, in order."""
    values = scores[pool]
    if count < len(pool):
        bound = np.partition(values, len(pool) - count)[len(pool) - count]
        # All ties with the last place stay in, so that the sort below can settle them by index.
        near = values >= bound
        pool, values = pool[near], values[near]
    return pool[np.lexsort((pool, -values))][:count]
