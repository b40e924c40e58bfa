"""Ratings as compact arrays, with ids and item metadata beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.ratings import RatingsMatrix

# MovieLens' ratings, in stars: the half-star scale, which the whole stars of old sets are part of.
LOWEST, HIGHEST, HALF_STAR = 0.5, 5.0, 0.5

_SHOWN_PROBLEMS = 10
# Ids of at most so many bytes are compared as one integer, several times as fast as as text.
_WORD = 8


class RatingsError(ValueError):
    """Ratings cannot be read, or are not what they should be."""

    @classmethod
    def listing(cls, what: str, problems: Sequence[str]) -> RatingsError:
        """An error that shows the first problems, and says how many there are."""
        shown = "".join(f"\n  {problem}" for problem in problems[:_SHOWN_PROBLEMS])
        hidden = len(problems) - _SHOWN_PROBLEMS
        more = f"\n  … and {hidden} more" if hidden > 0 else ""
        return cls(f"{what} ({len(problems)}):{shown}{more}")


@dataclass(frozen=True)
class RatingScale:
    """The ratings that users can give, in stars: low, low + step, …, high."""

    low: float
    high: float
    step: float

    @classmethod
    def of(cls, ratings: Float32) -> RatingScale:
        """The scale that ratings are on: MovieLens' half stars from 0.5, or whole ones from 1."""
        if bool((ratings % 1 != 0).any()):
            return cls(LOWEST, HIGHEST, HALF_STAR)
        return cls(1.0, HIGHEST, 1.0)


@dataclass(frozen=True)
class ItemDetails:
    """What a source says about an item."""

    title: str
    year: int = 0
    genres: tuple[str, ...] = ()


@dataclass(frozen=True)
class RatingsDataset:
    """All ratings of a source, sorted by user and item: the order of its rows does not matter.

    Attributes:
        users: User index of each rating (int32, n).
        items: Item index of each rating (int32, n).
        ratings: Stars (float32, n).
        timestamps: Seconds since 1970 (int64, n).
        user_ids: The users' ids.
        catalogue: The items' ids and metadata.
        source: Where the ratings came from.
        scale: The rating scale.
        file_order: For each row of the source, in its order, the row here (int64, n).
    """

    users: Int32
    items: Int32
    ratings: Float32
    timestamps: Int64
    user_ids: Vocabulary
    catalogue: Catalogue
    source: str
    scale: RatingScale
    file_order: Int64

    @classmethod
    def of(
        cls,
        users: Sequence[str] | NDArray[np.bytes_],
        items: Sequence[str] | NDArray[np.bytes_],
        ratings: Float32,
        timestamps: Int64,
        details: Mapping[str, ItemDetails],
        source: str,
        name_row: Callable[[int], str] = lambda row: f"row {row + 1}",
    ) -> RatingsDataset:
        """Makes a data set of rows.

        Args:
            users: User ids (n).
            items: Item ids (n).
            ratings: Stars (float32, n).
            timestamps: Seconds since 1970 (int64, n).
            details: What is known of items, by id. Items that nobody rated are left out; those
                that it does not have are titled by their id.
            source: Where the ratings came from.
            name_row: Says where a row was read, for errors.

        Raises:
            RatingsError: There are no ratings, one is off the scale, or a user rated an item
                twice. Which of two ratings holds is for the source to say, even where one of
                them is newer.
        """
        if not len(ratings):
            raise RatingsError(f"{source}: there are no ratings")
        valid = (ratings >= LOWEST) & (ratings <= HIGHEST) & (ratings % HALF_STAR == 0)
        if not valid.all():
            problems = [
                f"{name_row(row)}: {ratings[row]:g} is no rating from {LOWEST:g} to {HIGHEST:g}"
                for row in np.flatnonzero(~valid).tolist()
            ]
            raise RatingsError.listing(f"{source}: malformed rows", problems)
        user_names, user_index = distinct(_encoded(users))
        item_names, item_index = distinct(_encoded(items))
        cells = user_index * len(item_names) + item_index
        order = np.argsort(cells, kind="stable")
        again = np.flatnonzero(np.diff(cells[order]) == 0) + 1
        if len(again):
            problems = [
                f"{name_row(int(order[place]))}: user {user_names[user_index[row]].decode()} rates "
                f"item {item_names[item_index[row]].decode()} again, after "
                f"{name_row(int(order[place - 1]))}"
                for place, row in zip(again, order[again], strict=True)
            ]
            raise RatingsError.listing(f"{source}: repeated ratings", problems)
        known = [
            details.get(name, ItemDetails(name))
            for name in (encoded.decode() for encoded in item_names.tolist())
        ]
        file_order = np.empty(len(order), dtype=np.int64)
        file_order[order] = np.arange(len(order))
        return cls(
            users=user_index[order].astype(np.int32),
            items=item_index[order].astype(np.int32),
            ratings=ratings[order].astype(np.float32),
            timestamps=timestamps[order].astype(np.int64),
            user_ids=Vocabulary(user_names),
            catalogue=Catalogue.of(
                Vocabulary(item_names),
                [item.title for item in known],
                [item.year for item in known],
                [item.genres for item in known],
            ),
            source=source,
            scale=RatingScale.of(ratings),
            file_order=file_order,
        )

    def __len__(self) -> int:
        return len(self.ratings)

    @cached_property
    def by_user(self) -> RatingsMatrix:
        """Users' ratings of items (CSR): user → items, and (user, item) → rating."""
        return RatingsMatrix.of(
            self.users, self.items, self.ratings, len(self.user_ids), len(self.catalogue)
        )

    @cached_property
    def by_item(self) -> RatingsMatrix:
        """Items' ratings by users (CSC): item → users."""
        return RatingsMatrix.of(
            self.items, self.users, self.ratings, len(self.catalogue), len(self.user_ids)
        )

    def matrix(self, rows: Int64) -> RatingsMatrix:
        """The ratings matrix of some rows (int64, n, in any order), which knows their order."""
        return RatingsMatrix.of(
            self.users[rows],
            self.items[rows],
            self.ratings[rows],
            len(self.user_ids),
            len(self.catalogue),
            self.timestamps[rows],
        )

    def rating(self, user: int, item: int) -> float | None:
        """A user's rating of an item in stars; None without one."""
        seen = self.by_user.seen(user)
        place = int(np.searchsorted(seen, item))
        if place == len(seen) or seen[place] != item:
            return None
        return float(self.by_user.ratings[self.by_user.indptr[user] + place])

    def fingerprint(self, rows: Int64 | None = None) -> str:
        """SHA-256 of all rows or some, in hexadecimal.

        It covers ids, stars and timestamps, and depends neither on the order of the rows nor on
        the format of the source.
        """
        rows = np.arange(len(self)) if rows is None else np.sort(rows)
        digest = hashlib.sha256()
        for index, names in ((self.users, self.user_ids), (self.items, self.catalogue.items)):
            # The ids of these rows alone, once each, and which of them each row has.
            used, codes = np.unique(index[rows], return_inverse=True)
            digest.update("\n".join(names.ids(used)).encode() + b"\0")
            digest.update(codes.astype("<i4").tobytes())
        digest.update(self.ratings[rows].astype("<f4").tobytes())
        digest.update(self.timestamps[rows].astype("<i8").tobytes())
        return digest.hexdigest()


def _encoded(names: Sequence[str] | NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    if isinstance(names, np.ndarray):
        return names
    return np.array([name.encode() for name in names], dtype=np.bytes_)


def distinct(names: NDArray[np.bytes_]) -> tuple[NDArray[np.bytes_], Int64]:
    """Sorted distinct names, and the index among them of each name (int64): `numpy.unique`."""
    if names.dtype.itemsize > _WORD:
        distinct, index = np.unique(names, return_inverse=True)
        return distinct, index
    # Big-endian words are in the order of their bytes.
    words = names.astype(f"S{_WORD}").view(">u8").astype(np.uint64)
    distinct_words, index = np.unique(words, return_inverse=True)
    return distinct_words.astype(">u8").view(f"S{_WORD}").astype(names.dtype), index
