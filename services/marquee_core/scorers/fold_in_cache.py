"""Keeps the vectors of users who were folded in a moment ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import numpy as np

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

    def get(self, profiles: Profiles, fold: Callable[[Profiles], Float32]) -> Float32:
        """Returns the vectors of users (float32, B × d).

        Args:
            profiles: The profiles of B users.
            fold: Computes the vectors of profiles (float32, B × d).
        """
        keys = [
            (profiles.items[start:end].tobytes(), profiles.ratings[start:end].tobytes())
            for start, end in pairwise(profiles.indptr.tolist())
        ]
        found = [self._vectors.get(key) for key in keys]
        missing = [row for row, vector in enumerate(found) if vector is None]
        if missing:
            everyone = len(missing) == len(keys)
            folded = fold(profiles if everyone else profiles.take(np.array(missing)))
            for row, vector in zip(missing, folded, strict=True):
                found[row] = self._vectors[keys[row]] = vector.copy()
            # Other threads may evict at the same time.
            while len(self._vectors) > self._max_users:
                self._vectors.popitem(last=False)
        return np.stack([vector for vector in found if vector is not None])
