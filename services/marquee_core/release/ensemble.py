"""The ensemble: linear blends of the models' scores, one for ratings and one for rankings.

A release has a pair of blends for each set of backends that may be available, because the best
weights of the remaining models differ from their weights in the full ensemble.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.errors import ArtifactError, reason_of
from marquee_core.json_text import parse_json
from marquee_core.output import Output
from marquee_core.release.manifest import Manifest
from marquee_core.service_names import GATEWAY

BASELINE = "baseline"
POPULARITY = "popularity"
RECENT_POPULARITY = "recent_popularity"
GATEWAY_MODELS = (BASELINE, POPULARITY, RECENT_POPULARITY)
"""The models that the gateway evaluates itself, so they are always available.

A release may lack `RECENT_POPULARITY`.
"""


@dataclass(frozen=True)
class Blend:
    """A linear blend: intercept + Σ weight · score.

    Attributes:
        weights: The weight of each model, by name; models with weight 0 are omitted.
        intercept: The constant term.
    """

    weights: Mapping[str, float]
    intercept: float

    @cached_property
    def weight_vector(self) -> Float64:
        """The weights in the order of `weights` (float64, models)."""
        return np.array(list(self.weights.values()), np.float64)

    def apply(self, scores: Mapping[str, Float32]) -> Float64:
        """Blends the models' scores.

        Args:
            scores: The scores of each model by name, arrays of one shape (float32).

        Returns:
            The blended scores (float64, the same shape).

        Raises:
            KeyError: The scores of a weighted model are missing.
        """
        shape = next(iter(scores.values())).shape
        total = np.full(shape, self.intercept)
        for model, weight in self.weights.items():
            total += weight * scores[model]
        return total


@dataclass(frozen=True)
class BlendPair:
    """The two blends for one set of backends.

    Attributes:
        rating: Predicts ratings in stars.
        ranking: Ranks items; only the order of its scores is meaningful.
    """

    rating: Blend
    ranking: Blend

    def models(self) -> tuple[str, ...]:
        """Returns the names of the models that have a weight in either blend."""
        return tuple(dict.fromkeys((*self.ranking.weights, *self.rating.weights)))


@dataclass(frozen=True)
class Ensemble:
    """The blends of a release.

    Attributes:
        by_backends: For each set of available backends, the blends of their models and the
            gateway's models.
    """

    by_backends: Mapping[frozenset[str], BlendPair]

    def blends(self, backends: Sequence[str]) -> BlendPair:
        """Returns the blends for the available backends."""
        return self.by_backends[frozenset(backends)]

    def single_model(self, model: str, is_stars: bool) -> BlendPair:
        """Returns the blends that use a single model.

        Args:
            model: The model's name.
            is_stars: Whether the model predicts stars. If not, ratings are predicted by the blend
                of the gateway's models.
        """
        blend = Blend({model: 1.0}, 0.0)
        return BlendPair(blend if is_stars else self.blends(()).rating, blend)

    def save(self, path: Path) -> None:
        """Writes the blends to a JSON file."""
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
        """Reads the blends written by `save`.

        Raises:
            ArtifactError: The file is damaged, lacks the blends for a set of the release's
                backends, weights a model that the release lacks or that needs another backend, or
                has weights that invert predictions or rankings.
        """
        backend_of = {model.name: model.backend for model in manifest.models}
        try:
            pairs = {
                frozenset(row["backends"]): BlendPair(_blend(row["rating"]), _blend(row["ranking"]))
                for row in parse_json(path.read_bytes(), "ensemble")
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ArtifactError(f"damaged ensemble: {reason_of(error)}") from error
        for backends, pair in pairs.items():
            for model in pair.models():
                if backend_of.get(model) not in backends | {GATEWAY}:
                    raise ArtifactError(
                        f"the blends for the backends {sorted(backends)} give weight to {model!r}, "
                        "which these backends do not score"
                    )
            _check_blends(pair, manifest)
        needed = {backend for backend in backend_of.values() if backend != GATEWAY}
        for subset in backend_subsets(sorted(needed)):
            if subset not in pairs:
                raise ArtifactError(f"the ensemble has no blends for the backends {sorted(subset)}")
        return cls(pairs)


def backend_subsets(backends: Sequence[str]) -> list[frozenset[str]]:
    """Returns all subsets of the backends, the empty one first."""
    return [
        frozenset(name for index, name in enumerate(backends) if bits >> index & 1)
        for bits in range(1 << len(backends))
    ]


def _check_blends(pair: BlendPair, manifest: Manifest) -> None:
    """Checks that blends are consistent with their models.

    If all models predict the same stars, a rating blend must predict about the same, and it must
    increase with them. A ranking blend must not have negative weights.

    Raises:
        ArtifactError: A blend is inconsistent.
    """
    data = manifest.data
    output_of = {model.name: model.output for model in manifest.models}
    if pair.rating.weights:
        for model in pair.rating.weights:
            if output_of[model] is not Output.STARS:
                raise ArtifactError(f"a rating blend uses {model!r}, which does not predict stars")
        slope = sum(pair.rating.weights.values())
        span = data.rating_max - data.rating_min
        for stars in (data.rating_min, data.rating_max):
            predicted = pair.rating.intercept + slope * stars
            if slope <= 0 or abs(predicted - stars) > span / 2:
                raise ArtifactError(
                    f"a rating blend predicts {predicted:.2f} stars if all of its models predict "
                    f"{stars:.2f}"
                )
    for model, weight in pair.ranking.weights.items():
        if weight < 0:
            raise ArtifactError(f"a ranking blend gives {model!r} the negative weight {weight:.4g}")


def _blend(raw: Mapping[str, object]) -> Blend:
    weights, intercept = raw["weights"], raw["intercept"]
    if not isinstance(weights, dict) or not isinstance(intercept, (int, float)):
        raise TypeError("weights must be an object and intercept a number")
    values = {str(name): float(weight) for name, weight in weights.items() if weight}
    if not np.isfinite([float(intercept), *values.values()]).all():
        raise ValueError("a weight or the intercept is not finite")
    return Blend(values, float(intercept))
