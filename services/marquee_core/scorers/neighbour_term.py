"""Item neighbourhoods as a term of another model's prediction, in NumPy alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.ratings import Profiles
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData

_WEIGHT = "neighbour_weight.json"


@dataclass(frozen=True, eq=False)
class NeighbourTerm:
    """w n_i with n_i = Σ_j s_ij e_uj / (Σ_j s_ij + D_i): what `ItemCFScorer` adds to the baseline.

    The sums run over the neighbours j of item i that the user rated.

    Attributes:
        indptr: The start of each item's neighbours in the next two arrays, then their end (int64,
            items + 1).
        indices: The neighbours (int32, nnz).
        similarities: s_ij of the neighbours (float32, nnz).
        damping: D, positive (float32, items).
        baseline: The baseline that the residuals e_uj = r_uj − b_uj are taken from.
        weight: w.
    """

    indptr: Int64
    indices: Int32
    similarities: Float32
    damping: Float32
    baseline: Baseline
    weight: float

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads what `save` wrote; the arrays are memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or the arrays are inconsistent.
        """
        items = data.matrix.item_count
        try:
            weight = float(json.loads((folder / _WEIGHT).read_text())["weight"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{_WEIGHT}: {error!r}") from error
        indptr = load_array(folder / "neighbour_indptr.npy", np.int64, (items + 1,))
        if indptr[0] != 0 or bool((np.diff(indptr) < 0).any()):
            raise ArtifactError("neighbour_indptr.npy: values must start at 0 and never decrease")
        size = int(indptr[-1])
        indices = load_array(folder / "neighbours.npy", np.int32, (size,))
        if size and not 0 <= indices.min() <= indices.max() < items:
            raise ArtifactError("neighbours.npy: a value is not the index of an item")
        similarities = load_array(folder / "similarities.npy", np.float32, (size,))
        damping = load_array(folder / "damping.npy", np.float32, (items,))
        if not (damping > 0).all() or not (similarities >= 0).all():
            raise ArtifactError("damping.npy or similarities.npy: a value is not positive")
        return cls(indptr, indices, similarities, damping, data.baseline, weight)

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        save_array(folder / "neighbour_indptr.npy", self.indptr)
        save_array(folder / "neighbours.npy", self.indices)
        save_array(folder / "similarities.npy", self.similarities)
        save_array(folder / "damping.npy", self.damping)
        (folder / _WEIGHT).write_text(json.dumps({"weight": self.weight}, allow_nan=False) + "\n")

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """w n of the same items for each of B users (float32, B × C)."""
        chosen = np.arange(len(self.damping), dtype=np.int32) if items is None else items
        places, starts = self._places(chosen)
        scores = np.empty((len(profiles), len(chosen)), dtype=np.float32)
        for row, (residuals, rated) in enumerate(self._dense(profiles)):
            scores[row] = self._means(residuals, rated, places, starts, chosen)
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """w n of a few items of each user's own (float32, B × C).

        Args:
            profiles: The profiles of the users.
            items: The items of each user (int32, B × C).
        """
        scores = np.empty(items.shape, dtype=np.float32)
        for row, (residuals, rated) in enumerate(self._dense(profiles)):
            places, starts = self._places(items[row])
            scores[row] = self._means(residuals, rated, places, starts, items[row])
        return scores

    def _dense(self, profiles: Profiles) -> list[tuple[Float32, Float32]]:
        """The residuals of each user, and 1 for each rated item (float32, items each)."""
        residuals = self.baseline.residuals(profiles)
        rows = []
        for start, end in pairwise(profiles.indptr.tolist()):
            of_items = np.zeros(len(self.damping), dtype=np.float32)
            rated = np.zeros(len(self.damping), dtype=np.float32)
            of_items[profiles.items[start:end]] = residuals[start:end]
            rated[profiles.items[start:end]] = 1.0
            rows.append((of_items, rated))
        return rows

    def _places(self, items: Int32) -> tuple[Int64, Int64]:
        """Where the neighbours of some items are, and where each item's begin among these."""
        first = self.indptr[items]
        counts = self.indptr[items + 1] - first
        starts = np.cumsum(counts) - counts
        places = np.arange(int(counts.sum())) + np.repeat(first - starts, counts)
        return places, starts

    def _means(
        self, residuals: Float32, rated: Float32, places: Int64, starts: Int64, items: Int32
    ) -> Float32:
        """w n of some items for one user (float32, C)."""
        near, similarities = self.indices[places], self.similarities[places]
        sums = np.zeros((2, len(starts) + 1), dtype=np.float32)
        # An item without neighbours must not take over those of the next one.
        bounds = np.append(starts, len(places))
        has_any = np.flatnonzero(np.diff(bounds) > 0)
        if len(has_any):
            for row, values in enumerate((residuals, rated)):
                sums[row, has_any] = np.add.reduceat(similarities * values[near], starts[has_any])
        weights = sums[1, :-1] + self.damping[items]
        means: Float32 = np.float32(self.weight) * sums[0, :-1] / weights
        return means
