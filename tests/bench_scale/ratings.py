"""Synthetic ratings shaped like MovieLens, drawn in time proportional to their number.

`python -m bench_scale.ratings SIZE FILE` draws the ratings of a size and writes them to a file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.ratings import RatingsMatrix

# The number of latent tastes, and the standard deviations of a rating's components in stars.
_TASTES = 8
_USER, _ITEM, _TASTE, _NOISE = 0.4, 0.45, 0.6, 0.75
_MEAN = 3.4
_ACTIVITY = 1.0  # standard deviation of the logarithm of a user's number of ratings
_DAY_S = 86_400
SEED = 0
"""The seed of the measured ratings."""


@dataclass(frozen=True)
class Size:
    """The size of a data set.

    Attributes:
        ratings: Number of ratings.
        users: Number of users.
        items: Number of items.
    """

    ratings: int
    users: int
    items: int


SIZES: dict[str, Size] = {
    "0.01": Size(10_000, 200, 400),
    "0.03": Size(30_000, 400, 800),
    "0.1": Size(100_000, 940, 1_680),
    "0.3": Size(300_000, 2_500, 2_500),
    "1": Size(1_000_000, 6_000, 3_700),
    "3": Size(3_000_000, 20_000, 8_000),
    "10": Size(10_000_000, 60_000, 15_000),
    "20": Size(20_000_000, 130_000, 45_000),
    "25": Size(25_000_000, 160_000, 60_000),
}
"""The sizes by name, in millions of ratings; those from 1 on follow MovieLens' data sets."""


@dataclass(frozen=True)
class SyntheticRatings:
    """Ratings, sorted by user and item.

    Attributes:
        size: The size of the data set.
        users: The user of each rating (int32, n).
        items: The item of each rating (int32, n).
        stars: The ratings, 0.5 to 5 in steps of 0.5 (float32, n).
        times: The time of each rating in seconds since 1970 (int64, n).
    """

    size: Size
    users: np.ndarray
    items: np.ndarray
    stars: np.ndarray
    times: np.ndarray

    @classmethod
    def draw(cls, size: Size, seed: int) -> SyntheticRatings:
        """Draws ratings with long tails of users and items, biases, tastes and noise."""
        random = np.random.default_rng(seed)
        activity = random.lognormal(0.0, _ACTIVITY, size.users)
        popularity = 1.0 / (np.arange(size.items) + size.items / 50) ** 1.3
        cells = np.empty(0, np.int64)
        # Duplicate pairs are dropped, so very active users and popular items get slightly fewer.
        while len(cells) < size.ratings:
            count = 2 * (size.ratings - len(cells)) + 100
            drawn = _choose(activity, count, random) * size.items
            drawn += _choose(popularity, count, random)
            cells = np.union1d(cells, drawn)
        cells = np.sort(random.choice(cells, size.ratings, replace=False))
        users, items = np.divmod(cells, size.items)
        tastes = random.normal(size=(size.users, _TASTES)).astype(np.float32)
        themes = random.normal(size=(size.items, _TASTES)).astype(np.float32)
        stars = _NOISE * random.standard_normal(size.ratings, dtype=np.float32) + _MEAN
        stars += (_USER * random.normal(size=size.users))[users].astype(np.float32)
        stars += (_ITEM * random.normal(size=size.items))[items].astype(np.float32)
        for taste, theme in zip(tastes.T, themes.T, strict=True):
            stars += np.float32(_TASTE / _TASTES**0.5) * taste[users] * theme[items]
        return cls(
            size,
            users.astype(np.int32),
            items.astype(np.int32),
            np.clip(np.round(2 * stars) / 2, 0.5, 5).astype(np.float32),
            random.integers(0, 1_000 * _DAY_S, size.ratings),
        )

    def matrix(self, rows: np.ndarray | slice = slice(None)) -> RatingsMatrix:
        """Makes the ratings matrix of the given rows."""
        return RatingsMatrix.of(
            self.users[rows],
            self.items[rows],
            self.stars[rows],
            self.size.users,
            self.size.items,
            self.times[rows],
        )

    def save(self, path: Path) -> None:
        """Writes the ratings to a file, which appears only when it is complete."""
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            for array in (self.users, self.items, self.stars, self.times):
                np.save(file, array, allow_pickle=False)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path, size: Size) -> SyntheticRatings:
        """Reads what `save` wrote."""
        with path.open("rb") as file:
            return cls(size, *(np.load(file, allow_pickle=False) for _ in range(4)))


def _choose(weights: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Draws indexes with probabilities proportional to weights (int64, count)."""
    ends = np.cumsum(weights / weights.sum())
    drawn = np.searchsorted(ends, random.random(count), side="right")
    return np.minimum(drawn, len(weights) - 1)


if __name__ == "__main__":
    name, target = sys.argv[1:]
    SyntheticRatings.draw(SIZES[name], SEED).save(Path(target))
