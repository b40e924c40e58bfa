"""Item neighbourhoods as a term of another model's prediction, without SciPy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.ratings import Profiles
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData

_WEIGHT = "neighbour_weight.json"
# The reverse of more similarities than these would take too much memory, eight bytes each.
_MAX_REVERSED = 4_000_000


@dataclass(frozen=True, eq=False)
class NeighbourTerm:
    """Computes w n_i with n_i = Σ_j s_ij e_uj / (Σ_j s_ij + D_i).

    The sums run over the neighbours j of item i that the user rated. n_i is the term that
    `ItemCFScorer` adds to the baseline.

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
        """Loads a term written by `save`; the arrays are memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or the arrays are inconsistent.
        """
        items = data.matrix.item_count
        try:
            weight = float(parse_json((folder / _WEIGHT).read_bytes(), _WEIGHT)["weight"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
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
        """Returns w n of the same items for each of B users (float32, B × C).

        Args:
            profiles: The profiles of the users.
            items: The items (int32, C); None for the whole catalogue.
        """
        if items is None and len(self.indices) <= _MAX_REVERSED:
            return self._score_all(profiles)
        chosen = np.arange(len(self.damping), dtype=np.int32) if items is None else items
        scores = np.empty((len(profiles), len(chosen)), dtype=np.float32)
        for row in range(len(profiles)):
            scores[row] = self.score_pairs(profiles.single(row), chosen[None])[0]
        return scores

    def _score_all(self, profiles: Profiles) -> Float32:
        """Returns w n of all items for each of B users (float32, B × items).

        Only the similarities to rated items are read, a small part of all similarities.
        """
        indptr, items, similarities = self._reversed
        scores = np.empty((len(profiles), len(self.damping)), dtype=np.float32)
        residuals = self.baseline.residuals(profiles)
        for row, (start, end) in enumerate(pairwise(profiles.indptr.tolist())):
            entries, counts = _entries(indptr, profiles.items[start:end])
            near, weights = items[entries], similarities[entries]
            products = weights * np.repeat(residuals[start:end], counts)
            sums = np.bincount(near, products, len(self.damping))
            totals = np.bincount(near, weights, len(self.damping))
            scores[row] = self.weight * sums / (totals + self.damping)
        return scores

    @cached_property
    def _reversed(self) -> tuple[Int64, Int32, Float32]:
        """The items that have each item as a neighbour, with the similarities.

        Returns:
            The start of each item's part of the next two arrays, then their end (int64, items + 1);
            the items (int32, nnz); and the similarities (float32, nnz).
        """
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=len(self.damping))
        items = np.repeat(np.arange(len(self.damping), dtype=np.int32), np.diff(self.indptr))
        indptr = np.concatenate([[0], np.cumsum(counts)])
        return indptr, items[order], self.similarities[order]

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """Returns w n of different items for each of B users (float32, B × C).

        Args:
            profiles: The profiles of the users.
            items: The items of each user (int32, B × C).
        """
        users, size = items.shape
        catalogue = len(self.damping)
        # For each user and item, the index of the user's rating of the item; -1 without one.
        rating_of = np.full(users * catalogue, -1, dtype=np.int32)
        rating_of[profiles.rows * catalogue + profiles.items] = np.arange(len(profiles.items))
        entries, counts = _entries(self.indptr, items.ravel())
        pairs = np.repeat(np.arange(users * size), counts)
        ratings = rating_of[pairs // max(1, size) * catalogue + self.indices[entries]]
        # Drop the neighbours that the user has not rated, which are most of them.
        rated = np.flatnonzero(ratings >= 0)
        ratings, pairs, similarities = (
            ratings[rated],
            pairs[rated],
            self.similarities[entries[rated]],
        )
        residuals = self.baseline.residuals(profiles)[ratings]
        weights = np.bincount(pairs, similarities, minlength=users * size)
        sums = np.bincount(pairs, similarities * residuals, minlength=users * size)
        means = self.weight * sums / (weights + self.damping[items.ravel()])
        return means.reshape(items.shape).astype(np.float32)


def _entries(indptr: Int64, items: Int32) -> tuple[Int64, Int64]:
    """Returns where the values of some items are stored, and their number per item.

    Args:
        indptr: The start of each item's values, then the end of the last (int64, items + 1).
        items: The items (int32, n).

    Returns:
        The entries of the first item, then of the second, and so on (int64, nnz), and the number of
        entries of each item (int64, n).
    """
    first = indptr[items]
    counts = indptr[items + 1] - first
    starts = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(first - starts, counts), counts
