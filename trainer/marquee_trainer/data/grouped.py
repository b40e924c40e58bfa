"""Sorts rows whose users follow one another, in blocks that fit into a processor's cache.

Most files of ratings hold the rows of a user one after another. Whole users can then be moved,
and only the rows of each user must be sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from marquee_core.arrays import Float32, Int32, Int64, position_dtype
from marquee_trainer.data.chunked import ChunkedArray, large_array, parts
from marquee_trainer.data.ids import IdColumn

_BLOCK_ROWS = 1 << 16
_BLOCK_USERS = 512
# With fewer rows than this for each stretch of users that are moved together, rows are moved one by
# one.
_STRETCH_ROWS = 128


class SortedRatings(NamedTuple):
    """Ratings sorted by user and item, without repeats.

    Attributes:
        users: The user of each rating (int32, n).
        items: The item of each rating (int32, n).
        ratings: The ratings (float32, n).
        times: Seconds since 1970 (int64, n).
        places: The row of the source that each rating comes from (int32 or int64, n).
    """

    users: Int32
    items: Int32
    ratings: Float32
    times: Int64
    places: Int32 | Int64


class _Runs(NamedTuple):
    """Runs of rows of the same user.

    Attributes:
        starts: The first row of each run, and the number of rows (int64, runs + 1).
        users: The user of each run (int32, runs).
    """

    starts: Int64
    users: Int32


def sort_grouped(
    users: IdColumn,
    items: IdColumn,
    ratings: ChunkedArray[np.float32],
    times: ChunkedArray[Any] | None,
) -> SortedRatings | None:
    """Sorts rows by user and item if the rows of each user follow one another.

    Args:
        users: The users (n).
        items: The items (n).
        ratings: The ratings (n).
        times: Seconds since 1970 (n); None if all are 0.

    Returns:
        The sorted rows; None if the rows of a user are apart, or a user and an item are repeated.
    """
    runs = _runs(users)
    if runs is None:
        return None
    count = len(users)
    lengths = np.zeros(len(users.names), dtype=np.int64)
    lengths[runs.users] = np.diff(runs.starts)
    ends = np.cumsum(lengths)
    # The row to which the first row of each run is moved.
    targets = (ends - lengths)[runs.users]
    found = SortedRatings(
        large_array(count, np.int32),
        large_array(count, np.int32),
        large_array(count, np.float32),
        np.zeros(count, np.int64) if times is None else large_array(count, np.int64),
        large_array(count, position_dtype(count)),
    )
    columns: list[ChunkedArray[Any]] = [items.indexes, ratings, *([] if times is None else [times])]
    width = len(items.names)
    first = 0
    rows = np.arange(0, dtype=np.int32)
    for last, block in _blocks(columns, runs.starts, max(_BLOCK_ROWS, width)):
        starts = runs.starts[first : last + 1] - runs.starts[first]
        if starts[-1] > len(rows):
            rows = np.arange(2 * starts[-1], dtype=np.int32)
        by_item = _sorted_by_item(items.indexes.values(block[0]), starts, width, rows)
        if by_item is None:
            return None
        sorted_items, order = by_item
        picked = order.astype(np.intp)
        moved = [
            (found.items, sorted_items),
            (found.ratings, ratings.values(block[1].take(picked, mode="clip"))),
            (found.places, order + found.places.dtype.type(runs.starts[first])),
        ]
        if times is not None:
            moved.append((found.times, times.values(block[2].take(picked, mode="clip"))))
        _move(moved, targets[first:last], starts)
        first = last
    for part in parts(len(lengths), _BLOCK_USERS):
        numbers = np.arange(part.start, part.stop, dtype=np.int32)
        start = ends[part.start] - lengths[part.start]
        found.users[start : ends[part.stop - 1]] = np.repeat(numbers, lengths[part])
    return found


def _runs(users: IdColumn) -> _Runs | None:
    """The runs of equal users; None if a user has several."""
    starts: list[Int64] = []
    values: list[NDArray[Any]] = []
    row, before, runs = 0, None, 0
    for chunk in users.indexes.chunks:
        for part in parts(len(chunk)):
            piece = chunk[part]
            new = np.flatnonzero(piece[1:] != piece[:-1]) + 1
            if before is None or piece[0] != before:
                new = np.concatenate([[0], new])
            starts.append(new + row)
            values.append(piece[new])
            row, before, runs = row + len(piece), piece[-1], runs + len(new)
            if runs > len(users.names):
                return None
    codes: Int32 = users.indexes.values(np.concatenate(values))
    if np.bincount(codes, minlength=len(users.names)).max(initial=0) > 1:
        return None
    return _Runs(np.concatenate([*starts, [row]]), codes)


def _blocks(
    columns: Sequence[ChunkedArray[Any]], starts: Int64, least: int
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Blocks of whole runs, with at least so many rows in all but the last one.

    Args:
        columns: The columns.
        starts: The first row of each run, and the number of rows (int64, runs + 1).
        least: The least number of rows.

    Yields:
        The first run after the block, and the block's rows of each column.
    """
    held: list[list[NDArray[Any]]] = [[] for _ in columns]
    begin = end = 0
    for pieces in _aligned(columns):
        for own, piece in zip(held, pieces, strict=True):
            own.append(piece)
        end += len(pieces[0])
        last = int(np.searchsorted(starts, end, side="right")) - 1
        cut = int(starts[last])
        if cut == begin or (cut - begin < least and end < starts[-1]):
            continue
        joined = [own[0] if len(own) == 1 else np.concatenate(own) for own in held]
        yield last, [values[: cut - begin] for values in joined]
        held = [[values[cut - begin :]] for values in joined]
        begin = cut


def _aligned(columns: Sequence[ChunkedArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Pieces of the same rows of each column, one after another."""
    sizes = {tuple(map(len, column.chunks)) for column in columns}
    same = len(sizes) == 1
    pieces = [column.chunks if same else (column.joined,) for column in columns]
    for chunks in zip(*pieces, strict=True):
        for part in parts(len(chunks[0])):
            yield [chunk[part] for chunk in chunks]


def _sorted_by_item(
    items: Int32, starts: Int64, width: int, rows: Int32
) -> tuple[Int32, Int32] | None:
    """Sorts the rows of each run by item.

    They are sorted by counting, as `sort_rows` does.

    Args:
        items: The item of each row (int32, n).
        starts: The first row of each run, and the number of rows (int64, runs + 1).
        width: The number of items.
        rows: 0, 1, … (int32, at least n).

    Returns:
        The sorted items and the rows in their new order (int32, n); None if a run repeats an item.
    """
    runs = len(starts) - 1
    by_user = csr_array((rows[: len(items)], items, starts.astype(np.int32)), shape=(runs, width))
    # By columns, the entries of a matrix are sorted by row, and by rows again, by column.
    by_run = by_user.tocsc().tocsr()
    is_again = by_run.indices[1:] == by_run.indices[:-1]
    is_again[starts[1:-1] - 1] = False
    return None if is_again.any() else (by_run.indices, by_run.data)


def _move(
    columns: Sequence[tuple[NDArray[Any], NDArray[Any]]], targets: Int64, starts: Int64
) -> None:
    """Writes runs to their places.

    Args:
        columns: Where to write, and what (n).
        targets: The first row to which each run is written (int64, runs).
        starts: The first row of each run, and the number of rows (int64, runs + 1).
    """
    lengths = np.diff(starts)
    # Runs that stay together are written at once.
    breaks = np.flatnonzero(targets[1:] != targets[:-1] + lengths[:-1]) + 1
    if _STRETCH_ROWS * len(breaks) > starts[-1]:
        rows = np.repeat(targets - starts[:-1], lengths) + np.arange(starts[-1])
        for target, values in columns:
            target[rows] = values
        return
    begins = starts[np.concatenate([[0], breaks])].tolist()
    ends = [*begins[1:], int(starts[-1])]
    for row, begin, end in zip(targets[[0, *breaks]].tolist(), begins, ends, strict=True):
        for target, values in columns:
            target[row : row + end - begin] = values[begin:end]
