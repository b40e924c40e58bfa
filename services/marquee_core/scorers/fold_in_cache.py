"""Keeps the vectors of users who were folded in a moment ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles


class FoldInCache:
    """The vectors of the users who were folded in last, by their ratings.

    An answer asks the same scorer twice: for the ranking, and for the stars of the page. The
    second time the vector is looked up. The order of ratings is not part of the key, so it must
    not affect the vector.
    """

    def __init__(self, max_users: int) -> None:
        """Creates an empty cache for at most `max_users` vectors."""
        self._max_users = max_users
        self._vectors: OrderedDict[tuple[bytes, bytes], Float32] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, profile: Profiles, fold: Callable[[Profiles], Float32]) -> Float32:
        """The vector of a user (float32, d).

        Args:
            profile: The profile of a single user.
            fold: Computes the vectors of profiles (float32, B × d).
        """
        key = profile.items.tobytes(), profile.ratings.tobytes()
        vector = self._vectors.get(key)
        if vector is None:
            vector = fold(profile)[0]
            self._vectors[key] = vector
            # Other threads may evict at the same time.
            while len(self._vectors) > self._max_users:
                self._vectors.popitem(last=False)
        return vector
