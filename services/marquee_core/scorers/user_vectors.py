"""Looks up or computes the vectors of users."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles


def user_vectors(
    trained: Float32, profiles: Profiles, fold: Callable[[Profiles], Float32]
) -> Float32:
    """Returns the vector of each user: the trained one, or one that is folded in if necessary.

    Args:
        trained: The vectors of the known users (float32, users × d).
        profiles: The profiles of B users.
        fold: Computes the vectors of profiles (float32, B × d).

    Returns:
        The vectors (float32, B × d).
    """
    needs_fold_in = profiles.needs_fold_in
    if needs_fold_in.all():
        return fold(profiles)
    vectors = trained[np.maximum(profiles.user_index, 0)]
    folded = np.flatnonzero(needs_fold_in)
    if len(folded):
        vectors[folded] = fold(profiles.take(folded))
    return vectors
