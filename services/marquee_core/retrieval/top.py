"""Selects the highest scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Float32, Int32, Int64

# With at least this many scores, the maxima of blocks of `_BLOCK_SIZE` scores are compared first.
_LARGE = 16_384
_BLOCK_SIZE = 256
# The block size of `top_rows`.
_ROW_BLOCK = 16
# A row with more than this many times `count` candidates is searched separately.
_WIDE = 8
# The lowest score above −∞.
_LOWEST = np.finfo(np.float32).min
# `best_unordered` samples this many times `count` scores, and derives a bound from them above which
# it expects the second many times `count` scores.
_SAMPLED, _SAMPLE_SLACK = 8, 1.3
# With a mask, this many times `count` scores are selected first, and only those are masked.
_SLACK = 4


def top_indexes(scores: NDArray[Any], count: int, eligible: Bool | None = None) -> Int64:
    """Returns the indexes of the highest scores, best first; ties are broken by lower index.

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
    # Usually most items are eligible. It is then cheaper to select more than `count` scores and
    # to mask those than to mask the whole catalogue.
    candidates = _best(scores, _near_top(scores, _SLACK * count), _SLACK * count)
    selected = candidates[eligible[candidates]]
    if len(selected) >= count:
        return selected[:count]
    return _best(scores, _usable(scores, eligible), count)


def best_unordered(scores: Float32, count: int) -> Int64:
    """Returns the indexes of the highest scores in ascending order, at most `count` of them.

    Among equal scores it is undefined which are selected. A sample of the scores yields a bound
    below which few or none of the highest are, so that only the scores above it are partitioned.

    Args:
        scores: Scores (float32, n); −∞ is never selected.
        count: Number of indexes to return.
    """
    if count <= 0:
        return np.empty(0, np.int64)
    bound, step = _LOWEST, len(scores) // (_SAMPLED * count)
    if step > 1:
        sample = scores[::step]
        rank = len(sample) - 1 - int(_SAMPLE_SLACK * count / step)
        bound = max(np.partition(sample, rank)[rank], _LOWEST)
    near = np.flatnonzero(scores >= bound)
    if len(near) < count and bound > _LOWEST:
        near = np.flatnonzero(scores >= _LOWEST)
    if len(near) <= count:
        return near
    values = scores[near]
    chosen = np.argpartition(values, len(values) - count)[len(values) - count :]
    return np.sort(near[chosen])


def union_of(parts: Sequence[Int32]) -> Int32:
    """Returns the distinct items of at least one array of items, ascending (int32).

    For a few thousand items, NumPy's `unique`, which hashes, takes several times as long.
    """
    items = np.sort(np.concatenate(parts))
    is_first = np.ones(len(items), dtype=np.bool_)
    np.not_equal(items[1:], items[:-1], out=is_first[1:])
    return items[is_first].astype(np.int32, copy=False)


@dataclass(frozen=True)
class TopRows:
    """The indexes of the highest scores of each row.

    Attributes:
        indexes: The indexes, best first. Shorter rows are padded with their first index, or with 0
            if they are empty (int32, rows × at most the requested number).
        counts: The number of indexes of each row (int64, rows).
    """

    indexes: Int32
    counts: Int64

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, row: int) -> Int32:
        """Returns the indexes of a row (int32)."""
        return self.indexes[row, : self.counts[row]]


def top_rows(scores: Float32, count: int, eligible: Bool | None = None) -> TopRows:
    """Returns the indexes of the highest scores of each row; see `top_indexes`.

    The maxima of short blocks are compared first, vectorised over all rows.

    Args:
        scores: Scores (float32, rows × n); −∞ is never selected, and a row with NaN yields no
            indexes.
        count: Number of indexes to return for each row.
        eligible: True for the scores that may be selected (bool, rows × n); None for all.
    """
    rows, size = scores.shape
    if count <= 0:
        return TopRows(np.empty((rows, 0), np.int32), np.zeros(rows, np.int64))
    blocks = size // _ROW_BLOCK
    usable = scores if eligible is None else np.where(eligible, scores, np.float32(-np.inf))
    if blocks > 2 * count:
        # At least `count` blocks have a maximum of `bound` or more, so the best scores do too.
        maxima = usable[:, : blocks * _ROW_BLOCK].reshape(rows, _ROW_BLOCK, blocks).max(axis=1)
        bound = np.partition(maxima, blocks - count, axis=1)[:, blocks - count]
        near = usable >= np.maximum(bound, _LOWEST)[:, None]
    elif size > count:
        # There are too few blocks to compare, but also few scores.
        bound = np.partition(usable, size - count, axis=1)[:, size - count]
        near = usable >= np.maximum(bound, _LOWEST)[:, None]
    else:
        near = usable > -np.inf
    (flat,) = near.ravel().nonzero()
    if rows == 1:
        best = _best(usable[0], flat, count).astype(np.int32)
        return TopRows(best[None], np.array([len(best)]))
    owners = flat // size
    counts = np.bincount(owners, minlength=rows)
    if counts.max(initial=0) > _WIDE * count:
        # In some rows many scores are equal, so sorting all candidates would take long.
        for row in np.flatnonzero(counts > _WIDE * count).tolist():
            chosen = _best(usable[row], np.flatnonzero(near[row]), count)
            near[row] = False
            near[row, chosen] = True
        (flat,) = near.ravel().nonzero()
        owners = flat // size
        counts = np.bincount(owners, minlength=rows)
    pool = _padded(owners, flat % size, counts)
    values = usable[np.arange(rows)[:, None], pool.indexes]
    values[np.arange(values.shape[1]) >= pool.counts[:, None]] = -np.inf
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    indexes = pool.indexes[np.arange(rows)[:, None], order]
    return TopRows(indexes, np.minimum(pool.counts, count))


def pad_rows(rows: Int64, values: Int64, count: int) -> TopRows:
    """Arranges values as rows of equal length.

    Args:
        rows: The row of each value, ascending (int64, n).
        values: The values (int64, n).
        count: The number of rows.

    Returns:
        The values of each row, padded with the row's first value, or with 0 if it is empty.
    """
    return _padded(rows, values, np.bincount(rows, minlength=count))


def _padded(rows: Int64, values: Int64, counts: Int64) -> TopRows:
    """Arranges values as rows of equal length; see `pad_rows`.

    Args:
        rows: The row of each value, ascending (int64, n).
        values: The values (int64, n).
        counts: The number of values of each row (int64, rows).
    """
    starts = counts.cumsum() - counts
    padded = np.zeros((len(counts), max(1, counts.max(initial=0))), dtype=np.int32)
    has_values = counts > 0
    padded[has_values] = values[starts[has_values], None]
    padded[rows, np.arange(len(rows)) - starts[rows]] = values
    return TopRows(padded, counts)


def _usable(scores: NDArray[Any], eligible: Bool | None) -> Int64:
    usable = ~np.isnan(scores)
    if eligible is not None:
        usable &= eligible
    return np.flatnonzero(usable)


def _near_top(scores: NDArray[Any], count: int) -> Int64:
    """Returns the indexes in the blocks with the highest maxima, which contain the best scores.

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
    if len(pool) and (pool[1:] > pool[:-1]).all():
        # A stable sort leaves equal scores in the order of their indexes.
        return pool[np.argsort(-values, kind="stable")[:count]]
    return pool[np.lexsort((pool, -values))][:count]
