"""Weights from rated items to scored items, and histories that they are applied to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.ratings import Profiles
from marquee_core.scorers.neighbours import RowMatrix, csr_matrix

_ITEMS, _WEIGHTS = "items.npy", "weights.npy"
# So many later ratings double the base of the decay of a history.
_HISTORY_OFFSET = 2.0


def decay(counts: Int32, power: float, offset: float) -> Float32:
    """How much what is behind others counts: (1 + n / offset)^−power (float32, as `counts`).

    A power law forgets the first few fast and the rest slowly; on MovieLens it orders better what
    comes next than an exponential does.

    Args:
        counts: n, how many others there are between (int32).
        power: 0 counts all alike.
        offset: So many others double the base.
    """
    if not power:
        return np.ones(counts.shape, dtype=np.float32)
    return ((1.0 + counts / offset) ** -power).astype(np.float32)


def liking(ratings: Float32, minimum_stars: float, indifference: float) -> Float32:
    """How much ratings count, whenever they were given (float32, as `ratings`).

    Args:
        ratings: Ratings in stars (float32).
        minimum_stars: A rating of at least so many stars is a like, and counts 1.
        indifference: How much any other counts.
    """
    liked = ratings >= minimum_stars
    return np.where(liked, np.float32(1.0), np.float32(indifference))


def fading(later: Int32, power: float) -> Float32:
    """How much ratings of a history count: (1 + later / 2)^−power (float32, as `later`).

    Args:
        later: How many ratings were given at later moments (int32).
        power: 0 counts all alike.
    """
    return decay(later, power, _HISTORY_OFFSET)


@dataclass(frozen=True)
class ItemWeightsConfig:
    """What models of weights among items share.

    Attributes:
        minimum_stars: A rating of at least so many stars counts as liking.
        indifference: How much any other rating counts beside a like.
        history_decay: h; with n later ratings, one counts (1 + n / 2)^−h.
        regularisation: Of the weights, in the model's own unit.
        max_items: The most liked items that the dense weights cover.
    """

    minimum_stars: float
    indifference: float
    history_decay: float
    regularisation: float
    max_items: int

    def __post_init__(self) -> None:
        if not np.isfinite(self.minimum_stars):
            raise ValueError(f"minimum_stars: {self.minimum_stars} is not finite")
        if not 0 < self.regularisation < np.inf:
            raise ValueError(f"regularisation: {self.regularisation} is not finite and above 0")
        self._refuse_negative("indifference", "history_decay")
        if self.max_items < 1:
            raise ValueError(f"max_items: {self.max_items} is below 1")

    def _refuse_negative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not finite and 0 or above")


@dataclass(frozen=True, eq=False)
class ItemWeights:
    """Dense weights among some items of a catalogue.

    Dense weights cover the most liked items only where the catalogue is large; others score 0, and
    having rated them tells nothing.

    Attributes:
        items: The items that are covered, ascending (int32, m).
        weights: From rated item (row) to scored item (float32, m × m).
        item_count: The size of the catalogue.
        places: The place of each item of the catalogue among `items`, -1 for others (int32, items).
    """

    items: Int32
    weights: Float32
    item_count: int
    places: Int32 = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", places_of(self.items, self.item_count))

    @classmethod
    def load(cls, folder: Path, item_count: int) -> Self:
        """Maps what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        items = load_array(folder / _ITEMS, np.int32, (None,))
        count = len(items)
        if count and not (items[0] >= 0 and items[-1] < item_count and (np.diff(items) > 0).all()):
            raise ArtifactError(f"{_ITEMS}: not ascending items of the catalogue")
        weights = load_array(folder / _WEIGHTS, np.float32, (count, count))
        if not np.isfinite(weights).all():
            raise ArtifactError(f"{_WEIGHTS}: not every value is finite")
        return cls(items, weights, item_count)

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        save_array(folder / _ITEMS, self.items)
        save_array(folder / _WEIGHTS, self.weights)

    def score(self, profiles: Profiles, config: ItemWeightsConfig) -> Float32:
        """Sums, for each item of the catalogue, the weights from rated items (float32, B × items).

        Args:
            profiles: The users.
            config: How much each of their ratings counts.
        """
        values = liking(profiles.ratings, config.minimum_stars, config.indifference)
        values *= fading(profiles.later, config.history_decay)
        scores: Float32 = history(profiles, values, len(self.items), self.places) @ self.weights
        if len(self.items) == self.item_count:
            return scores
        whole = np.zeros((len(profiles), self.item_count), dtype=np.float32)
        whole[:, self.items] = scores
        return whole


def places_of(items: Int32, item_count: int) -> Int32:
    """The place of each item of the catalogue among `items`, -1 for others (int32, items)."""
    places = np.full(item_count, -1, dtype=np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    return places


def history(
    profiles: Profiles, values: Float32, item_count: int, places: Int32 | None = None
) -> RowMatrix:
    """What users rated, as rows of a matrix (float32, B × columns).

    Args:
        profiles: The users.
        values: The value of each rating, those of 0 left out (float32, nnz).
        item_count: The number of columns.
        places: The column of each item of the catalogue, -1 for those left out (int32, items);
            None for the items themselves.
    """
    columns = profiles.items if places is None else places[profiles.items]
    kept = (columns >= 0) & (values != 0)
    indptr = np.zeros(len(profiles) + 1, dtype=np.int64)
    np.cumsum(np.bincount(profiles.rows[kept], minlength=len(profiles)), out=indptr[1:])
    return csr_matrix(indptr, columns[kept], values[kept], item_count)
