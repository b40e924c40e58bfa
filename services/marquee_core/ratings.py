"""The ratings matrix of a release, and the rating profiles that scorers work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.arrays import (
    ArrayError,
    Bool,
    Float32,
    Int32,
    Int64,
    load_array,
    save_array,
)


@dataclass(frozen=True)
class Profiles:
    """What is known of B users: who they are, and all their ratings, in CSR form.

    Attributes:
        user_index: Index of each user; -1 for a visitor (int32, B).
        indptr: Where each user's ratings begin, and the end of the last (int64, B + 1).
        items: Item indexes, ascending and distinct within a user (int32, nnz).
        ratings: Ratings in stars (float32, nnz).
        later: How many of the user's ratings were given at later moments (int32, nnz).
        folded: True where the ratings are not exactly the user's training ratings, so that a
            trained representation of the user does not hold and must be folded in (bool, B).
    """

    user_index: Int32
    indptr: Int64
    items: Int32
    ratings: Float32
    later: Int32
    folded: Bool

    def __len__(self) -> int:
        return len(self.user_index)

    @property
    def counts(self) -> Int64:
        """How many ratings each user has (int64, B)."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> Int64:
        """The user's place in the batch for each rating (int64, nnz)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def take(self, places: Int64) -> Profiles:
        """The profiles at some places of the batch, in that order."""
        indptr, picked = _gather(self.indptr, places)
        return Profiles(
            self.user_index[places],
            indptr,
            self.items[picked],
            self.ratings[picked],
            self.later[picked],
            self.folded[places],
        )


@dataclass(frozen=True)
class RatingsMatrix:
    """Users' ratings of items, in CSR form.

    Attributes:
        indptr: Where each user's ratings begin, and the end of the last (int64, users + 1).
        items: Item indexes, ascending and distinct within a user (int32, ratings).
        ratings: Ratings in stars (float32, ratings).
        later: How many of the user's ratings were given at later moments (int32, ratings).
        item_count: How many items there are, rated or not.
    """

    indptr: Int64
    items: Int32
    ratings: Float32
    later: Int32
    item_count: int

    @classmethod
    def of(
        cls,
        users: Int32,
        items: Int32,
        ratings: Float32,
        user_count: int,
        item_count: int,
        times: Int64 | None = None,
    ) -> RatingsMatrix:
        """Makes a matrix of (user, item, rating) rows in any order; each pair at most once.

        Args:
            users: User indexes (int32, n).
            items: Item indexes (int32, n).
            ratings: Ratings in stars (float32, n).
            user_count: How many users there are, with ratings or without.
            item_count: How many items there are, rated or not.
            times: When ratings were given, in any unit (int64, n); None for all at one moment.

        Raises:
            ValueError: A pair is repeated.
        """
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
        if len(users) > 1 and bool(((np.diff(users) == 0) & (np.diff(items) == 0)).any()):
            raise ValueError("a (user, item) pair is rated more than once")
        indptr = np.zeros(user_count + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=user_count), out=indptr[1:])
        later = np.zeros(len(users), np.int32)
        if times is not None:
            later = _later(users, times[order], indptr)
        return cls(
            indptr,
            items.astype(np.int32),
            ratings[order].astype(np.float32),
            later,
            item_count,
        )

    @property
    def user_count(self) -> int:
        """How many users there are, with ratings or without."""
        return len(self.indptr) - 1

    @property
    def rating_count(self) -> int:
        """How many ratings there are."""
        return len(self.items)

    @property
    def users(self) -> Int32:
        """The user index of each rating (int32, ratings)."""
        return np.repeat(np.arange(self.user_count, dtype=np.int32), np.diff(self.indptr))

    @property
    def item_counts(self) -> Int64:
        """How many ratings each item has (int64, items)."""
        return np.bincount(self.items, minlength=self.item_count)

    def seen(self, user: int) -> Int32:
        """The items that a user has rated (int32, ascending)."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def profiles(self, users: Int32 | Sequence[int]) -> Profiles:
        """The profiles of known users."""
        users = np.asarray(users, dtype=np.int32)
        # Only what these users have is touched: a server asks for one or a few of very many.
        indptr, picked = _gather(self.indptr, users)
        return Profiles(
            users,
            indptr,
            self.items[picked],
            self.ratings[picked],
            self.later[picked],
            np.zeros(len(users), dtype=np.bool_),
        )

    def all_profiles(self) -> Profiles:
        """The profiles of all users, without a copy of their ratings."""
        return Profiles(
            np.arange(self.user_count, dtype=np.int32),
            self.indptr,
            self.items,
            self.ratings,
            self.later,
            np.zeros(self.user_count, dtype=np.bool_),
        )

    def profile(self, user: int, items: Int32, ratings: Float32) -> Profiles:
        """One user's or visitor's profile with fresh ratings, which replace those they repeat.

        Args:
            user: The user's index; -1 for a visitor.
            items: Item indexes, distinct (int32), the latest rated last.
            ratings: Their ratings in stars (float32).
        """
        fresh = len(items)
        all_items, all_stars = items, ratings
        later = np.arange(fresh - 1, -1, -1, dtype=np.int32)
        if user >= 0:
            own = slice(self.indptr[user], self.indptr[user + 1])
            known, stars, before = self.items[own], self.ratings[own], self.later[own]
            if fresh:
                kept = ~np.isin(known, items)
                known, stars, before = known[kept], stars[kept], before[kept]
                # Fewer are later now, where later ones were replaced.
                before = np.searchsorted(np.sort(before), before).astype(np.int32) + fresh
            all_items, all_stars = np.concatenate([known, items]), np.concatenate([stars, ratings])
            later = np.concatenate([before, later])
        order = np.argsort(all_items, kind="stable")
        return Profiles(
            np.array([user], dtype=np.int32),
            np.array([0, len(all_items)], dtype=np.int64),
            all_items[order].astype(np.int32),
            all_stars[order].astype(np.float32),
            later[order],
            np.array([user < 0 or len(items) > 0]),
        )

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        save_array(folder / "indptr.npy", self.indptr)
        save_array(folder / "rated_items.npy", self.items)
        save_array(folder / "ratings.npy", self.ratings)
        save_array(folder / "later.npy", self.later)

    @classmethod
    def load(cls, folder: Path, user_count: int, item_count: int) -> RatingsMatrix:
        """Maps the arrays that `save` wrote.

        Raises:
            ArrayError: A file is not the array that it should be.
        """
        indptr = load_array(folder / "indptr.npy", np.int64, (user_count + 1,))
        count = int(indptr[-1])
        later = load_array(folder / "later.npy", np.int32, (count,))
        if count and not 0 <= later.min() <= later.max() < np.diff(indptr).max():
            raise ArrayError("later.npy: not numbers of a user's ratings")
        return cls(
            indptr,
            load_array(folder / "rated_items.npy", np.int32, (count,)),
            load_array(folder / "ratings.npy", np.float32, (count,)),
            later,
            item_count,
        )


def _later(users: Int32, times: Int64, indptr: Int64) -> Int32:
    """How many of a user's ratings are of later times (int32, n).

    Args:
        users: The user of each rating, ascending (int32, n).
        times: When it was given (int64, n).
        indptr: Where each user's ratings begin, and the end of the last (int64).
    """
    order = np.lexsort((times, users))
    sorted_times = times[order]
    # Where the next moment of a user begins is the end of those that are not later.
    is_last = np.ones(len(users), dtype=np.bool_)
    is_last[:-1] = (np.diff(users) != 0) | (np.diff(sorted_times) != 0)
    ends = np.flatnonzero(is_last) + 1
    next_moment = np.repeat(ends, np.diff(ends, prepend=0))
    later = np.empty(len(users), dtype=np.int32)
    later[order] = np.repeat(indptr[1:], np.diff(indptr)) - next_moment
    return later


def _gather(indptr: Int64, rows: Int64 | Int32) -> tuple[Int64, Int64]:
    """The bounds of some rows put one after another, and the places of their values."""
    starts = indptr[rows]
    counts = indptr[1:][rows] - starts
    joined = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=joined[1:])
    return joined, np.arange(joined[-1]) + np.repeat(starts - joined[:-1], counts)


def join_profiles(parts: Sequence[Profiles]) -> Profiles:
    """One batch of several, in order."""
    if len(parts) == 1:
        return parts[0]
    indptr = np.zeros(sum(len(part) for part in parts) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([part.counts for part in parts]), out=indptr[1:])
    return Profiles(
        np.concatenate([part.user_index for part in parts]),
        indptr,
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.ratings for part in parts]),
        np.concatenate([part.later for part in parts]),
        np.concatenate([part.folded for part in parts]),
    )
