"""Sparse weights for the tail of a large catalogue.

Dense weights between m items take m² numbers, so only the most liked items, the core, have them.
Every item of the tail has weights from a few items of the core, by which it is scored, and weights
to the same items, by which ratings of it affect the core's scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.scorers.sparse import (
    ColumnMatrix,
    RowMatrix,
    SelectedColumns,
    SparseRows,
    csr_matrix,
)

_ITEMS, _INDPTR, _SOURCES = "tail_items.npy", "tail_indptr.npy", "tail_sources.npy"
_FORWARD, _BACKWARD = "tail_forward.npy", "tail_backward.npy"


@dataclass(frozen=True, eq=False)
class TailWeights:
    """Weights between t items of the tail and the m items of the core.

    Attributes:
        items: The items of the tail, ascending (int32, t).
        indptr: The start of each item's sources, then the end of the last one's (int64, t + 1).
        sources: The positions of source items in the core, ascending for each item (int32, n).
        forward: The weights from the sources to the items of the tail (float32, n).
        backward: The weights from the items of the tail to the sources (float32, n).
        core_count: m.
    """

    items: Int32
    indptr: Int64
    sources: Int32
    forward: Float32
    backward: Float32
    core_count: int

    @classmethod
    def empty(cls, core_count: int) -> Self:
        """Returns an empty tail."""
        empty = np.empty(0, dtype=np.int32)
        values = np.empty(0, dtype=np.float32)
        return cls(empty, np.zeros(1, dtype=np.int64), empty, values, values, core_count)

    @classmethod
    def load(cls, folder: Path, item_count: int, core: Int32) -> Self:
        """Loads weights written by `save`, memory-mapped. The tail is empty if there are no files.

        Args:
            folder: The folder.
            item_count: The number of items in the catalogue.
            core: The items of the core (int32, m).

        Raises:
            ArtifactError: A file is damaged, or the arrays are inconsistent.
        """
        if not (folder / _ITEMS).exists():
            return cls.empty(len(core))
        items = load_array(folder / _ITEMS, np.int32, (None,))
        in_range = not len(items) or 0 <= items.min() <= items.max() < item_count
        if not in_range or (np.diff(items) <= 0).any() or np.isin(items, core).any():
            raise ArtifactError(
                f"{_ITEMS}: values must be ascending item indexes that are not in items.npy"
            )
        indptr = load_array(folder / _INDPTR, np.int64, (len(items) + 1,))
        if indptr[0] or (np.diff(indptr) < 0).any():
            raise ArtifactError(f"{_INDPTR}: values must start at 0 and never decrease")
        size = int(indptr[-1])
        sources = load_array(folder / _SOURCES, np.int32, (size,))
        if size and not 0 <= sources.min() <= sources.max() < len(core):
            raise ArtifactError(f"{_SOURCES}: a value is not the position of an item")
        forward, backward = (
            load_array(folder / name, np.float32, (size,)) for name in (_FORWARD, _BACKWARD)
        )
        if not (np.isfinite(forward).all() and np.isfinite(backward).all()):
            raise ArtifactError(f"{_FORWARD}, {_BACKWARD}: not every value is finite")
        return cls(items, indptr, sources, forward, backward, len(core))

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder; an empty tail writes none."""
        if not len(self.items):
            return
        save_array(folder / _ITEMS, self.items)
        save_array(folder / _INDPTR, self.indptr)
        save_array(folder / _SOURCES, self.sources)
        save_array(folder / _FORWARD, self.forward)
        save_array(folder / _BACKWARD, self.backward)

    def __len__(self) -> int:
        return len(self.items)

    def row(self, position: int) -> slice:
        """Returns the slice of `sources` and of the weights that belongs to an item.

        Args:
            position: The position of the item in the tail.
        """
        return slice(int(self.indptr[position]), int(self.indptr[position + 1]))

    @cached_property
    def by_item(self) -> RowMatrix:
        """The weights from the core to the tail, by item of the tail (float32, t × m)."""
        return csr_matrix(self.indptr, self.sources, self.forward, self.core_count)

    def scores(self, rows: SparseRows, positions: Int32) -> Float32:
        """Computes the scores of some items of the tail by the weights from the core.

        Args:
            rows: The histories of B users in the core (float32, B × m).
            positions: The positions of the items in the tail, ascending (int32, n).

        Returns:
            The scores (float32, B × n).
        """
        columns = self._items_as_columns
        selected = SelectedColumns(columns, positions)
        scores = np.empty((len(rows.indptr) - 1, len(positions)), dtype=np.float32)
        history = np.zeros(self.core_count, dtype=np.float32)
        for row, (start, end) in enumerate(pairwise(rows.indptr.tolist())):
            history[rows.indices[start:end]] = rows.data[start:end]
            scores[row] = selected.products(history, columns.data)
            history[rows.indices[start:end]] = 0.0
        return scores

    @cached_property
    def _items_as_columns(self) -> ColumnMatrix:
        """The weights from the core to the tail, by item of the tail (float32, m × t)."""
        return self.by_item.T

    @cached_property
    def from_core(self) -> RowMatrix:
        """The weights from the core to the tail (float32, m × t)."""
        return self.by_item.T.tocsr()

    @cached_property
    def to_core(self) -> RowMatrix | None:
        """The weights from the tail to the core (float32, t × m); None if all are 0."""
        if not self.backward.any():
            return None
        return csr_matrix(self.indptr, self.sources, self.backward, self.core_count)
