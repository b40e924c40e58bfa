"""The ensemble: linear blends of the models' scores, for stars and for order.

A release holds one blend for each set of backends that may be there, because the best weights of
the remaining models are not the full ensemble's with one part left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import Manifest

BASELINE = "baseline"
POPULARITY = "popularity"
RECENT_POPULARITY = "recent_popularity"
# Models that the gateway itself scores, so that they are always there. A release may lack the last.
GATEWAY_MODELS = (BASELINE, POPULARITY, RECENT_POPULARITY)


@dataclass(frozen=True)
class Blend:
    """A linear blend: intercept + Σ weight · score.

    Attributes:
        weights: By model; models with no weight are left out.
        intercept: The constant.
    """

    weights: Mapping[str, float]
    intercept: float

    def apply(self, scores: Mapping[str, Float32]) -> Float64:
        """Blends score arrays of one shape (float64, that shape).

        Raises:
            KeyError: A weighted model has no scores.
        """
        shape = next(iter(scores.values())).shape
        total = np.full(shape, self.intercept)
        for model, weight in self.weights.items():
            total += weight * scores[model]
        return total


@dataclass(frozen=True)
class BlendPair:
    """The two blends of one set of models.

    Attributes:
        rating: Predicts stars.
        ranking: Scores for order.
    """

    rating: Blend
    ranking: Blend

    def models(self) -> tuple[str, ...]:
        """The models that either blend weighs."""
        return tuple(dict.fromkeys((*self.ranking.weights, *self.rating.weights)))


@dataclass(frozen=True)
class Ensemble:
    """The blends of a release, by the set of backends that they need.

    Attributes:
        by_backends: For each subset of the backends, the blends of what remains.
    """

    by_backends: Mapping[frozenset[str], BlendPair]

    def blends(self, backends: Sequence[str]) -> BlendPair:
        """The blends for the backends that are there."""
        return self.by_backends[frozenset(backends)]

    def alone(self, model: str, is_stars: bool) -> BlendPair:
        """The blends of one model alone; stars fall back on the gateway's own rating blend."""
        itself = Blend({model: 1.0}, 0.0)
        return BlendPair(itself if is_stars else self.blends(()).rating, itself)

    def save(self, path: Path) -> None:
        """Writes the blends as JSON."""
        rows = [
            {
                "backends": sorted(backends),
                **{
                    name: {"weights": dict(blend.weights), "intercept": blend.intercept}
                    for name, blend in (("rating", pair.rating), ("ranking", pair.ranking))
                },
            }
            for backends, pair in sorted(self.by_backends.items(), key=lambda row: sorted(row[0]))
        ]
        path.write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path, manifest: Manifest) -> Ensemble:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: The file is damaged, weighs a model that the release lacks or that needs
                another backend, or lacks a subset of the release's backends.
        """
        backend_of = {model.name: model.backend for model in manifest.models}
        try:
            pairs = {
                frozenset(row["backends"]): BlendPair(_blend(row["rating"]), _blend(row["ranking"]))
                for row in json.loads(path.read_text())
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"damaged ensemble: {error!r}") from error
        for backends, pair in pairs.items():
            for model in pair.models():
                if backend_of.get(model) not in backends | {"gateway"}:
                    raise ArtifactError(
                        f"the ensemble of {sorted(backends)} weighs {model!r}, which is not theirs"
                    )
        needed = {backend for backend in backend_of.values() if backend != "gateway"}
        for subset in backend_subsets(sorted(needed)):
            if subset not in pairs:
                raise ArtifactError(f"the ensemble has no blend for {sorted(subset)}")
        return cls(pairs)


def backend_subsets(backends: Sequence[str]) -> list[frozenset[str]]:
    """Every subset of the backends, the empty one first."""
    return [
        frozenset(name for place, name in enumerate(backends) if bits >> place & 1)
        for bits in range(1 << len(backends))
    ]


def _blend(raw: Mapping[str, object]) -> Blend:
    weights, intercept = raw["weights"], raw["intercept"]
    if not isinstance(weights, dict) or not isinstance(intercept, (int, float)):
        raise TypeError("weights and intercept")
    values = {str(name): float(weight) for name, weight in weights.items() if weight}
    if not np.isfinite([float(intercept), *values.values()]).all():
        raise ValueError("not every weight is finite")
    return Blend(values, float(intercept))
