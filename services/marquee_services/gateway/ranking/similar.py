"""The blend of the models' item similarities."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.release.ensemble import Blend, BlendPair
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.scoring.similarities import Similarities, shrinkage


def blend_similarities(
    rows: Mapping[str, Similarities], item: int, release: GatewayRelease
) -> tuple[Float32, dict[str, Float32]]:
    """Averages the models' similarities, after scaling each model's highest similarity to 1.

    Without scaling, models with large values would dominate; for example, cosines of factors are
    larger than shrunk correlations. Similarities to items with few ratings are shrunk towards 0,
    because the factors of such items are mostly noise.

    Args:
        rows: The similarities of the item, by model. Other items count as dissimilar.
        item: The item's index; its similarity to itself is not used for scaling.
        release: The release of the items.

    Returns:
        The blend (float32, items), and the scaled similarities by model.
    """
    factors = shrinkage(release.rating_counts)
    scaled: dict[str, Float32] = {}
    for name, found in rows.items():
        if found.items is None:
            shrunk = found.values * factors
            others = np.delete(np.abs(shrunk), item)
            highest = float(others.max()) if len(others) else 0.0
        else:
            shrunk = np.zeros(release.item_count, dtype=np.float32)
            shrunk[found.items] = found.values * factors[found.items]
            highest = found.highest
        scaled[name] = (
            np.clip(shrunk / highest, -1.0, 1.0) if highest > 0 else np.zeros_like(shrunk)
        )
    if not scaled:
        return np.zeros(release.item_count, dtype=np.float32), scaled
    return np.mean(list(scaled.values()), axis=0, dtype=np.float32), scaled


def equal_weights(models: Collection[str]) -> BlendPair:
    """Returns the equal ranking weights with which an answer reports `blend_similarities`."""
    return BlendPair(Blend({}, 0.0), Blend({name: 1.0 / len(models) for name in models}, 0.0))
