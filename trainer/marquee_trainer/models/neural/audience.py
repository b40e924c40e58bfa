"""Sums of the embeddings of the users who rated an item, the item's audience.

TensorFlow could compute them as products with a sparse matrix. These loops take a fraction of the
time, because they skip the ratings that dropout leaves out, and read each embedding at once. They
are not operations of a TensorFlow graph: one that calls Python differs between two fits, and then
rounds differently.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64, UInt16
from marquee_core.ratings import RatingsMatrix


class Audience(NamedTuple):
    """The users who rated each item, or a part of them.

    Attributes:
        indptr: The start of each item's users, then the end of the last one (int64, items + 1).
        users: The users, ordered by item (int32, n).
    """

    indptr: Int64
    users: Int32


class Audiences:
    """The scaled sums Σ_u t_u / √(n_i + c) over the n_i users u who rated each item i.

    The audience of an item is informative (implicit feedback about items, as in Rendle, Zhang and
    Koren, 2019).

    Attributes:
        whole: The users of all ratings.
    """

    def __init__(self, matrix: RatingsMatrix, damping: float) -> None:
        """Orders the ratings by item.

        Args:
            matrix: The training ratings.
            damping: c.
        """
        indptr = np.zeros(matrix.item_count + 1, dtype=np.int64)
        np.cumsum(matrix.item_counts, out=indptr[1:])
        self.whole = Audience(indptr, matrix.users[np.argsort(matrix.items, kind="stable")])
        self._scales = (1.0 / np.sqrt(matrix.item_counts + damping)).astype(np.float32)
        self._user_count = matrix.user_count
        # Memory that every part uses; in large data, new pages would take time in every step. The
        # loop that selects users writes each of them before it decides whether to keep it.
        users = np.empty(matrix.rating_count + 1, dtype=np.int32)
        self._part = Audience(np.empty_like(indptr), users)

    def part(self, dropout: float, seed: tuple[int, ...]) -> Audience:
        """Selects the users of random ratings.

        Args:
            dropout: The share of the ratings that are left out.
            seed: What the choice depends on.

        Returns:
            The users; valid until the next call, which uses the same memory.
        """
        starts, users = self._part
        # 16 random bits for each rating, because drawing 32 would take longer than the sums.
        ratings = len(self.whole.users)
        random = np.random.Generator(np.random.SFC64(seed))
        words = random.integers(0, 2**64, -(-ratings // 4), dtype=np.uint64)
        numbers = words.view(np.uint16)[:ratings]
        least = round(dropout * 2**16)
        count = select_users(*self.whole, numbers, least, starts, users)
        return Audience(starts, users[:count])

    def sums(self, embeddings: Float32, audience: Audience, weight: float = 1.0) -> Float32:
        """Computes the sums.

        Args:
            embeddings: t (float32, users × k).
            audience: The users that take part.
            weight: The factor of each of them, in addition to 1 / √(n_i + c).

        Returns:
            float32, items × k.
        """
        sums = np.zeros((len(self._scales), embeddings.shape[1]), dtype=np.float32)
        add_audiences(*audience, self._scales * np.float32(weight), embeddings, sums)
        return sums

    def gradient(self, by_item: Float32, audience: Audience, weight: float = 1.0) -> Float32:
        """Computes the gradient of a loss by the embeddings from that by the sums.

        Args:
            by_item: The gradient by the sums (float32, items × k).
            audience: See `sums`.
            weight: See `sums`.

        Returns:
            float32, users × k.
        """
        by_user = np.zeros((self._user_count, by_item.shape[1]), dtype=np.float32)
        spread_to_audiences(*audience, self._scales * np.float32(weight), by_item, by_user)
        return by_user


# Indexing single elements is faster here than rows, which numba turns into arrays.


@njit(nogil=True)
def select_users(
    indptr: Int64,
    users: Int32,
    numbers: UInt16,
    least: int,
    starts: Int64,
    selected: Int32,
) -> int:
    """Selects the users of some ratings, without branches, which would be unpredictable.

    Args:
        indptr: The start of each item's ratings, then the end of the last one (int64, items + 1).
        users: The user of each rating, ordered by item (int32, n).
        numbers: A number for each rating (uint16, n).
        least: The number from which on a rating is selected.
        starts: The start of each item's selected users, then the end of the last one (int64,
            items + 1); written.
        selected: The selected users, ordered by item (int32, n + 1); written, with any values
            beyond them.

    Returns:
        The number of selected users.
    """
    count = 0
    for item in range(len(indptr) - 1):
        starts[item] = count
        for rating in range(indptr[item], indptr[item + 1]):
            selected[count] = users[rating]
            count += numbers[rating] >= least
    starts[len(indptr) - 1] = count
    return count


@njit(nogil=True)
def add_audiences(
    indptr: Int64, users: Int32, scales: Float32, embeddings: Float32, sums: Float32
) -> None:
    """Adds the embeddings of each item's audience.

    Args:
        indptr: The start of each item's users, then the end of the last one (int64, items + 1).
        users: The users, ordered by item (int32, n).
        scales: The factor of each item (float32, items).
        embeddings: The embeddings (float32, all users × k).
        sums: The sums so far (float32, items × k); added to.
    """
    for item in range(len(scales)):
        scale = scales[item]
        for position in range(indptr[item], indptr[item + 1]):
            user = users[position]
            for column in range(sums.shape[1]):
                sums[item, column] += scale * embeddings[user, column]


@njit(nogil=True)
def spread_to_audiences(
    indptr: Int64, users: Int32, scales: Float32, gradients: Float32, sums: Float32
) -> None:
    """Adds the gradient of each item to its audience, which is the transpose of `add_audiences`.

    Args:
        indptr: See `add_audiences`.
        users: See `add_audiences`.
        scales: See `add_audiences`.
        gradients: The gradients (float32, items × k).
        sums: The sums so far (float32, all users × k); added to.
    """
    for item in range(len(scales)):
        scale = scales[item]
        for position in range(indptr[item], indptr[item + 1]):
            user = users[position]
            for column in range(sums.shape[1]):
                sums[user, column] += scale * gradients[item, column]
