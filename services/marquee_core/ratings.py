"""The ratings matrix of a release, and the rating profiles of users, the input of scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

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

_T = TypeVar("_T")

DISLIKE_SHARE = 0.3
"""The lowest part of the rating scale in which a rating is a dislike, as a share of the scale."""


def dislike_limit(low: float, high: float) -> float:
    """Returns the highest rating that is a dislike, in stars.

    It is 30 % of the scale above the lowest rating. Dislikes are, for example, 1 and 2 stars on a
    scale of 1 to 5, 0.5 to 1.5 stars on a scale of 0.5 to 5, ratings up to 3 on a scale of 1 to
    10, and a thumbs down.

    Args:
        low: The lowest rating of the scale, in stars.
        high: The highest rating of the scale, in stars.
    """
    return low + DISLIKE_SHARE * (high - low)


@dataclass(frozen=True)
class Profiles:
    """A batch of B users with all their ratings, in CSR form.

    Attributes:
        user_index: Index of each user, -1 for a visitor (int32, B).
        indptr: Row pointers: user b's ratings are at `indptr[b]:indptr[b + 1]` (int64, B + 1).
        items: Item indexes, ascending and distinct within a user (int32, nnz).
        ratings: Ratings in stars (float32, nnz).
        later_counts: For each rating, the number of later ratings by the same user (int32, nnz).
        needs_fold_in: True if the ratings differ from the user's training ratings. The user's
            vector must then be computed from the ratings (fold-in) instead of being looked up
            (bool, B).
    """

    user_index: Int32
    indptr: Int64
    items: Int32
    ratings: Float32
    later_counts: Int32
    needs_fold_in: Bool

    def __len__(self) -> int:
        return len(self.user_index)

    @cached_property
    def counts(self) -> Int64:
        """The number of ratings of each user (int64, B)."""
        return np.diff(self.indptr)

    @cached_property
    def rows(self) -> Int64:
        """The position in the batch of each rating's user (int64, nnz)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def cached(self, owner: object, name: str, compute: Callable[[], _T]) -> _T:
        """Returns a value derived from these profiles, computed on first use.

        Scorers share values in this way, such as the residuals of the baseline.

        Args:
            owner: The object that the value belongs to, such as the baseline; compared by identity.
            name: The name of the value, unique for the owner.
            compute: Computes the value. The result is shared and must not be modified.
        """
        key = id(owner), name
        found = self._computed.get(key)
        if found is None:
            # Holding a reference to the owner keeps its id from being reused.
            found = self._computed[key] = owner, compute()
        result: _T = found[1]
        return result

    @cached_property
    def _computed(self) -> dict[tuple[int, str], tuple[object, Any]]:
        return {}

    def single(self, position: int) -> Profiles:
        """Selects the profile at a position; if it is the only one, what it has cached remains."""
        return self if len(self) == 1 else self.take(np.array([position]))

    def take(self, positions: Int64) -> Profiles:
        """Selects the profiles at the given positions in the batch, in that order."""
        indptr, picked = _gather(self.indptr, positions)
        return Profiles(
            self.user_index[positions],
            indptr,
            self.items[picked],
            self.ratings[picked],
            self.later_counts[picked],
            self.needs_fold_in[positions],
        )


@dataclass(frozen=True)
class RatingsMatrix:
    """All users' ratings of items, in CSR form.

    Attributes:
        indptr: Row pointers: user u's ratings are at `indptr[u]:indptr[u + 1]` (int64, users + 1).
        items: Item indexes, ascending and distinct within a user (int32, ratings).
        ratings: Ratings in stars (float32, ratings).
        later_counts: For each rating, the number of later ratings by the same user (int32,
            ratings).
        item_count: Number of items, rated or not.
    """

    indptr: Int64
    items: Int32
    ratings: Float32
    later_counts: Int32
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
        """Creates a matrix from (user, item, rating) rows in any order.

        Args:
            users: User indexes (int32, n).
            items: Item indexes (int32, n).
            ratings: Ratings in stars (float32, n).
            user_count: Number of users, with or without ratings.
            item_count: Number of items, rated or not.
            times: Time of each rating, in any unit (int64, n); None to treat all ratings as
                simultaneous.

        Raises:
            ValueError: A user rates an item more than once.
        """
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
        if len(users) > 1 and bool(((np.diff(users) == 0) & (np.diff(items) == 0)).any()):
            raise ValueError("a user rates an item more than once")
        indptr = np.zeros(user_count + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=user_count), out=indptr[1:])
        later = np.zeros(len(users), np.int32)
        if times is not None:
            later = _count_later(users, times[order], indptr)
        return cls(
            indptr,
            items.astype(np.int32),
            ratings[order].astype(np.float32),
            later,
            item_count,
        )

    @property
    def user_count(self) -> int:
        """Number of users, with or without ratings."""
        return len(self.indptr) - 1

    @property
    def rating_count(self) -> int:
        """Number of ratings."""
        return len(self.items)

    @property
    def users(self) -> Int32:
        """The user index of each rating (int32, ratings)."""
        return np.repeat(np.arange(self.user_count, dtype=np.int32), np.diff(self.indptr))

    @property
    def item_counts(self) -> Int64:
        """The number of ratings of each item (int64, items)."""
        return np.bincount(self.items, minlength=self.item_count)

    def seen(self, user: int) -> Int32:
        """Returns the items that a user has rated, ascending (int32, n)."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def profiles(self, users: Int32 | Sequence[int]) -> Profiles:
        """Returns the profiles of known users."""
        users = np.asarray(users, dtype=np.int32)
        # Reads the ratings of these users only: a request needs a few users out of very many.
        indptr, picked = _gather(self.indptr, users)
        return Profiles(
            users,
            indptr,
            self.items[picked],
            self.ratings[picked],
            self.later_counts[picked],
            np.zeros(len(users), dtype=np.bool_),
        )

    def all_profiles(self) -> Profiles:
        """Returns the profiles of all users, which share memory with the matrix."""
        return Profiles(
            np.arange(self.user_count, dtype=np.int32),
            self.indptr,
            self.items,
            self.ratings,
            self.later_counts,
            np.zeros(self.user_count, dtype=np.bool_),
        )

    def profile(self, user: int, items: Int32, ratings: Float32) -> Profiles:
        """Returns the profile of a user or visitor with the ratings of a request added.

        A new rating replaces the user's earlier rating of the same item, and counts as later than
        all ratings in the matrix.

        Args:
            user: The user's index; -1 for a visitor.
            items: Distinct item indexes, ordered by time, oldest first (int32, n).
            ratings: The new ratings of these items in stars (float32, n).
        """
        fresh = np.arange(len(items) - 1, -1, -1, dtype=np.int32)
        all_items, all_ratings, later = items, ratings, fresh
        if user >= 0:
            old_items, old_ratings, old_later = self._without(user, items)
            all_items = np.concatenate([old_items, items])
            all_ratings = np.concatenate([old_ratings, ratings])
            later = np.concatenate([old_later + np.int32(len(items)), fresh])
        order = np.argsort(all_items, kind="stable")
        return Profiles(
            np.array([user], dtype=np.int32),
            np.array([0, len(all_items)], dtype=np.int64),
            all_items[order].astype(np.int32, copy=False),
            all_ratings[order].astype(np.float32, copy=False),
            later[order],
            np.array([user < 0 or len(items) > 0]),
        )

    def _without(self, user: int, items: Int32) -> tuple[Int32, Float32, Int32]:
        """Returns a known user's items, ratings and later counts, without the given items."""
        span = slice(self.indptr[user], self.indptr[user + 1])
        rated, ratings, later = self.items[span], self.ratings[span], self.later_counts[span]
        positions = np.searchsorted(rated, items)
        positions = (
            positions[rated.take(positions, mode="clip") == items] if len(rated) else positions[:0]
        )
        if not len(positions):
            return rated, ratings, later
        kept = np.ones(len(rated), dtype=np.bool_)
        kept[positions] = False
        later = later[kept]
        # Recount the later ratings without the dropped ones.
        later = np.searchsorted(np.sort(later), later).astype(np.int32)
        return rated[kept], ratings[kept], later

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        save_array(folder / "indptr.npy", self.indptr)
        save_array(folder / "rated_items.npy", self.items)
        save_array(folder / "ratings.npy", self.ratings)
        save_array(folder / "later_counts.npy", self.later_counts)

    @classmethod
    def load(cls, folder: Path, user_count: int, item_count: int) -> RatingsMatrix:
        """Memory-maps the arrays written by `save`.

        Args:
            folder: The folder of the arrays.
            user_count: Expected number of users.
            item_count: Number of items.

        Raises:
            ArrayError: A file is missing or damaged, has an unexpected dtype or size, or refers
                to users or items that do not exist.
        """
        indptr = load_array(folder / "indptr.npy", np.int64, (user_count + 1,))
        if indptr[0] or (np.diff(indptr) < 0).any():
            raise ArrayError("indptr.npy: the row pointers do not ascend from 0")
        count = int(indptr[-1])
        later = load_array(folder / "later_counts.npy", np.int32, (count,))
        if count and not 0 <= later.min() <= later.max() < np.diff(indptr).max():
            raise ArrayError(
                "later_counts.npy: a value is not below the number of a user's ratings"
            )
        items = load_array(folder / "rated_items.npy", np.int32, (count,))
        if count and not 0 <= items.min() <= items.max() < item_count:
            raise ArrayError("rated_items.npy: an item does not exist")
        return cls(
            indptr,
            items,
            load_array(folder / "ratings.npy", np.float32, (count,)),
            later,
            item_count,
        )


def _count_later(users: Int32, times: Int64, indptr: Int64) -> Int32:
    """Counts, for each rating, the ratings that the same user gave later (int32, n).

    Args:
        users: The user of each rating, ascending (int32, n).
        times: The time of each rating (int64, n).
        indptr: Row pointers of the users (int64, users + 1).
    """
    order = np.lexsort((times, users))
    sorted_times = times[order]
    # A user's ratings with the same time form a run; all ratings after its end are later.
    is_last = np.ones(len(users), dtype=np.bool_)
    is_last[:-1] = (np.diff(users) != 0) | (np.diff(sorted_times) != 0)
    ends = np.flatnonzero(is_last) + 1
    run_end = np.repeat(ends, np.diff(ends, prepend=0))
    later = np.empty(len(users), dtype=np.int32)
    later[order] = np.repeat(indptr[1:], np.diff(indptr)) - run_end
    return later


def _gather(indptr: Int64, rows: Int64 | Int32) -> tuple[Int64, Int64]:
    """Returns the row pointers of the concatenated rows, and the positions of their values.

    Args:
        indptr: The row pointers of all rows (int64, n + 1).
        rows: The rows to concatenate (int32 or int64, m).

    Returns:
        The new row pointers (int64, m + 1) and the positions of the values (int64, nnz).
    """
    starts = indptr[rows]
    counts = indptr[1:][rows] - starts
    joined = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=joined[1:])
    return joined, np.arange(joined[-1]) + np.repeat(starts - joined[:-1], counts)


def join_profiles(parts: Sequence[Profiles]) -> Profiles:
    """Joins several batches into one, in order."""
    if len(parts) == 1:
        return parts[0]
    indptr = np.zeros(sum(len(part) for part in parts) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([part.counts for part in parts]), out=indptr[1:])
    return Profiles(
        np.concatenate([part.user_index for part in parts]),
        indptr,
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.ratings for part in parts]),
        np.concatenate([part.later_counts for part in parts]),
        np.concatenate([part.needs_fold_in for part in parts]),
    )
