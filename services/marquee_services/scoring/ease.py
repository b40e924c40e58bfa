"""EASE: a linear model of which items go together (Steck, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from marquee_services.arrays import Float32, Int32, load_array, save_array
from marquee_services.errors import ArtifactError
from marquee_services.ratings import Profiles
from marquee_services.scoring.config import load_config, save_config
from marquee_services.scoring.neighbours import RowMatrix, csr_matrix
from marquee_services.scoring.scorer import Output, ReleaseData

_ITEMS, _WEIGHTS, _PRECISIONS = "items.npy", "weights.npy", "precisions.npy"


@dataclass(frozen=True)
class EASEConfig:
    """EASE.

    Attributes:
        minimum_stars: A rating of at least so many stars counts as liking.
        regularisation: c in λ = c √n̄, where n̄ is the mean number of likes of an item: counts are
            as uncertain as their square roots.
        max_items: The most liked items that the dense weights cover. They take 4 m² bytes to
            serve and three times that to fit: 100 MB and 300 MB for 5,000 items.
    """

    minimum_stars: float = 3.0
    regularisation: float = 70.0
    max_items: int = 5_000

    def __post_init__(self) -> None:
        if not np.isfinite(self.minimum_stars):
            raise ValueError(f"minimum_stars: {self.minimum_stars} is not finite")
        if not 0 < self.regularisation < np.inf:
            raise ValueError(f"regularisation: {self.regularisation} is not finite and above 0")
        if self.max_items < 1:
            raise ValueError(f"max_items: {self.max_items} is below 1")


def places_of(items: Int32, item_count: int) -> Int32:
    """The place of each item of the catalogue among `items`, -1 for others (int32, items)."""
    places = np.full(item_count, -1, dtype=np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    return places


def liked_matrix(profiles: Profiles, places: Int32, width: int, minimum_stars: float) -> RowMatrix:
    """Who likes what: 1 for each rating of at least `minimum_stars` (float32, B × width).

    Args:
        profiles: The users.
        places: The column of each item of the catalogue, -1 for those left out (int32, items).
        width: The number of columns.
        minimum_stars: What counts as liking, in stars.
    """
    columns = places[profiles.items]
    kept = (columns >= 0) & (profiles.ratings >= minimum_stars)
    indptr = np.zeros(len(profiles) + 1, dtype=np.int64)
    np.cumsum(np.bincount(profiles.rows[kept], minlength=len(profiles)), out=indptr[1:])
    return csr_matrix(indptr, columns[kept], np.ones(indptr[-1], dtype=np.float32), width)


class EASEScorer:
    """Scores x·B, where x is 1 for the items that a user likes and B the learned weights.

    B is dense, so it covers the most liked items only where the catalogue is large; other items
    score 0, and liking them tells nothing.
    """

    output = Output.AFFINITY

    def __init__(
        self,
        data: ReleaseData,
        config: EASEConfig,
        items: Int32,
        weights: Float32,
        precisions: Float32,
    ) -> None:
        """Takes what was learned.

        Args:
            data: The training ratings.
            config: The configuration.
            items: The items that B covers, ascending (int32, m).
            weights: B, from liked item (row) to scored item (float32, m × m).
            precisions: The diagonal of the inverse that B comes from (float32, m).
        """
        self.config = config
        self._items = items
        self._weights = weights
        self._precisions = precisions
        self._item_count = data.matrix.item_count
        self._places = places_of(items, self._item_count)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Maps what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        items = load_array(folder / _ITEMS, np.int32, (None,))
        count = len(items)
        if count and not (
            items[0] >= 0 and items[-1] < data.matrix.item_count and (np.diff(items) > 0).all()
        ):
            raise ArtifactError(f"{_ITEMS}: not ascending items of the catalogue")
        weights = load_array(folder / _WEIGHTS, np.float32, (count, count))
        if not np.isfinite(weights).all():
            raise ArtifactError(f"{_WEIGHTS}: not every value is finite")
        precisions = load_array(folder / _PRECISIONS, np.float32, (count,))
        if not ((precisions > 0) & np.isfinite(precisions)).all():
            raise ArtifactError(f"{_PRECISIONS}: not all finite and above 0")
        return cls(data, load_config(folder, EASEConfig), items, weights, precisions)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the arrays to a folder."""
        save_config(folder, self.config)
        save_array(folder / _ITEMS, self._items)
        save_array(folder / _WEIGHTS, self._weights)
        save_array(folder / _PRECISIONS, self._precisions)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        liked = liked_matrix(profiles, self._places, len(self._items), self.config.minimum_stars)
        scores: Float32 = liked @ self._weights
        if len(self._items) < self._item_count:
            covered = scores
            scores = np.zeros((len(profiles), self._item_count), dtype=np.float32)
            scores[:, self._items] = covered
        return scores if items is None else scores[:, items]

    def similarities(self, item: int) -> Float32 | None:
        """The partial correlation of an item with each item, all others held fixed.

        B is not symmetric and has no scale. With P the inverse that it comes from, B_ij =
        −P_ij / P_jj, while −P_ij / √(P_ii P_jj) = B_ij √(P_jj / P_ii) is the partial correlation
        of the Gaussian model that EASE fits, which has both.
        """
        row = np.zeros(self._item_count, dtype=np.float32)
        place = self._places[item]
        if place >= 0:
            scale = np.sqrt(self._precisions / self._precisions[place])
            row[self._items] = np.clip(self._weights[place] * scale, -1.0, 1.0)
        row[item] = 1.0
        return row
