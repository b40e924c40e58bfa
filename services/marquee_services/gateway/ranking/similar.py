"""Blends the models' item similarities."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.release.ensemble import Blend, BlendPair
from marquee_services.gateway.releases.release import GatewayRelease

# Ratings at which an item's learned factors are trusted by half: similarity · n / (n + this).
_SUPPORT = 20.0


def blend_similarities(
    rows: Mapping[str, Float32], item: int, release: GatewayRelease
) -> tuple[Float32, dict[str, Float32]]:
    """The mean of the models' similarities, each scaled so that its most similar item has 1.

    The scales differ by model: shrunk correlations are small, cosines of factors are not.
    Similarities of items with few ratings are shrunk, since their factors are little but noise.

    Args:
        rows: By model, the similarity of the item to every item (float32, items).
        item: The item.
        release: The release.

    Returns:
        The blend (float32, items), and by model the scaled similarities.
    """
    trust = (release.rating_counts / (release.rating_counts + _SUPPORT)).astype(np.float32)
    scaled: dict[str, Float32] = {}
    for name, row in rows.items():
        shrunk = row * trust
        others = np.delete(np.abs(shrunk), item)
        most = float(others.max()) if len(others) else 0.0
        scaled[name] = np.clip(shrunk / most, -1.0, 1.0) if most > 0 else np.zeros_like(shrunk)
    if not scaled:
        return np.zeros(release.item_count, dtype=np.float32), scaled
    return np.mean(list(scaled.values()), axis=0, dtype=np.float32), scaled


def mean_of(models: Collection[str]) -> BlendPair:
    """The blend that `blend_similarities` makes, as an answer names it: equal weights for order."""
    return BlendPair(Blend({}, 0.0), Blend({name: 1.0 / len(models) for name in models}, 0.0))
