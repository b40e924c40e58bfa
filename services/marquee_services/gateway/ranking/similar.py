"""The blend of the models' item similarities."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.release.ensemble import Blend, BlendPair
from marquee_services.gateway.releases.release import GatewayRelease

# Shrinks the similarity of an item with n ratings to similarity · n / (n + _SHRINKAGE).
_SHRINKAGE = 20.0


def blend_similarities(
    rows: Mapping[str, Float32], item: int, release: GatewayRelease
) -> tuple[Float32, dict[str, Float32]]:
    """Averages the models' similarities, after scaling each model's highest similarity to 1.

    Without scaling, models with large values would dominate; for example, cosines of factors are
    larger than shrunk correlations. Similarities to items with few ratings are shrunk towards 0,
    because the factors of such items are mostly noise.

    Args:
        rows: The similarity of the item to every item, by model (float32, items).
        item: The item's index; its similarity to itself is not used for scaling.
        release: The release of the items.

    Returns:
        The blend (float32, items), and the scaled similarities by model.
    """
    shrinkage = (release.rating_counts / (release.rating_counts + _SHRINKAGE)).astype(np.float32)
    scaled: dict[str, Float32] = {}
    for name, row in rows.items():
        shrunk = row * shrinkage
        others = np.delete(np.abs(shrunk), item)
        highest = float(others.max()) if len(others) else 0.0
        scaled[name] = (
            np.clip(shrunk / highest, -1.0, 1.0) if highest > 0 else np.zeros_like(shrunk)
        )
    if not scaled:
        return np.zeros(release.item_count, dtype=np.float32), scaled
    return np.mean(list(scaled.values()), axis=0, dtype=np.float32), scaled


def equal_weights(models: Collection[str]) -> BlendPair:
    """Returns the equal ranking weights with which an answer reports `blend_similarities`."""
    return BlendPair(Blend({}, 0.0), Blend({name: 1.0 / len(models) for name in models}, 0.0))
