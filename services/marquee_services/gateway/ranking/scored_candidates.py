"""The scores of a subject's candidates by each model, and the predicted stars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.release.ensemble import BlendPair
from marquee_services.gateway.backends.failures import BackendFailure


@dataclass(frozen=True)
class ScoredCandidates:
    """The scores of a subject's C candidates.

    Attributes:
        outputs: The scores of each model by name (float32, C).
        blends: The ensemble's blends for the backends that answered.
        scale: The lowest and the highest rating in stars.
        failures: Why the other backends did not answer.
        abstaining: The models that cannot score this subject.
    """

    outputs: Mapping[str, Float32]
    blends: BlendPair
    scale: tuple[float, float]
    failures: tuple[BackendFailure, ...]
    abstaining: tuple[str, ...]

    @cached_property
    def stars(self) -> Float64:
        """The ensemble's predicted ratings in stars, clipped to the scale (float64, C)."""
        blend, (low, high) = self.blends.rating, self.scale
        if not blend.weights:
            return np.full(len(next(iter(self.outputs.values()))), blend.intercept)
        # For few candidates, a single product is cheaper than `Blend.apply`.
        scores = np.array([self.outputs[name] for name in blend.weights], np.float64)
        stars: Float64 = blend.weight_vector @ scores
        stars += blend.intercept
        return stars.clip(low, high, out=stars)
