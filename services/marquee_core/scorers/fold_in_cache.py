"""A cache of the vectors of recently folded-in users."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles


class FoldInCache:
    """Caches the vectors of the most recently folded-in users, keyed by their ratings in order.

    A request may call the same scorer twice, to retrieve candidates and to rank them, or to rank
    and to predict stars; the second call finds the vector in the cache.
    """

    def __init__(self, max_users: int) -> None:
        """Creates an empty cache for at most `max_users` vectors."""
        self._max_users = max_users
        self._vectors: OrderedDict[tuple[bytes, bytes, bytes], Float32] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, profiles: Profiles, fold: Callable[[Profiles], Float32]) -> Float32:
        """Returns the vectors of users (float32, B × d); computes and caches the missing ones.

        A batch of more users than the cache may hold, as in evaluation, leaves it unchanged.

        Args:
            profiles: The profiles of B users.
            fold: Computes the vectors of profiles (float32, B × d).
        """
        if len(profiles) > self._max_users:
            return fold(profiles)
        keys = [
            (
                profiles.items[start:end].tobytes(),
                profiles.ratings[start:end].tobytes(),
                profiles.later_counts[start:end].tobytes(),
            )
            for start, end in pairwise(profiles.indptr.tolist())
        ]
        found = [self._vectors.get(key) for key in keys]
        missing = [row for row, vector in enumerate(found) if vector is None]
        if missing:
            is_all = len(missing) == len(keys)
            folded = fold(profiles if is_all else profiles.take(np.array(missing)))
            for row, vector in zip(missing, folded, strict=True):
                found[row] = self._vectors[keys[row]] = vector.copy()
            # Other threads may evict entries concurrently.
            while len(self._vectors) > self._max_users:
                self._vectors.popitem(last=False)
        return np.stack([vector for vector in found if vector is not None])
