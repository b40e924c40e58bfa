"""The scorer of deep and residual matrix factorization, in NumPy.

These models are trained with TensorFlow, but a fitted model consists of a few arrays, and its
perceptron is small. TensorFlow's overhead per call is several times the cost of the products.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.neighbour_term import NeighbourTerm
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.user_vectors import user_vectors

_FOLDER = "perceptron"
_SCALARS = "scalars.json"
# The number of (user, item) pairs whose hidden layers are computed together, to bound their memory.
_MAX_PAIRS = 16_384


@dataclass(frozen=True, eq=False)
class Layers:
    """The weights of a multi-layer perceptron, with batch normalisation folded in.

    Attributes:
        user_weights: The weights of (p, s) in the first layer (float32, (k + e) × h).
        item_part: W_q q_i + bias of the first layer, for each item (float32, items × h).
        product_weights: The weights of p ⊙ q in the first layer (float32, k × h); None if it is
            not an input.
        hidden: The weights and biases of the other hidden layers.
        output: The weights of the last layer (float32, h').
    """

    user_weights: Float32
    item_part: Float32
    product_weights: Float32 | None
    hidden: tuple[tuple[Float32, Float32], ...]
    output: Float32


@dataclass(frozen=True, eq=False)
class ItemParameters:
    """The parameters of the items, and the prior of the users.

    Attributes:
        factors: q (float32, items × k).
        variances: The posterior variances of q (float32, items × k).
        offsets: c in stars (float32, items).
        set_inputs: y (float32, items × e).
        set_outputs: z (float32, items × e).
        ridge: The prior precisions of a user's factors and, last, bias (float32, k + 1).
    """

    factors: Float32
    variances: Float32
    offsets: Float32
    set_inputs: Float32
    set_outputs: Float32
    ridge: Float32


class PerceptronScorer:
    """Predicts c_i + b + w_f (p · q_i + s · z_i + MLP(p, s, q_i)) + w_n n_i, with u = (p, b, s).

    (p, b) is the solution of a ridge regression on the user's ratings, in which the variances of q
    are added to the ridge. s = Σ_j y_j / √(n + 1) encodes the set of the n rated items (Koren,
    2008, equation 15). n_i is the term of the item neighbourhoods; see `NeighbourTerm`.
    """

    output = Output.STARS

    def __init__(
        self,
        data: ReleaseData,
        item_parameters: ItemParameters,
        layers: Layers,
        factor_weight: float = 1.0,
        neighbours: NeighbourTerm | None = None,
        users: Float32 | None = None,
    ) -> None:
        """Creates a scorer from the parameters of a fitted model.

        Args:
            data: The training ratings and their baseline.
            item_parameters: The parameters of the items.
            layers: The perceptron.
            factor_weight: w_f.
            neighbours: The item neighbourhoods with w_n; None for no such term.
            users: The vectors of the known users (float32, users × (k + 1 + e)); None to fold them
                in.
        """
        self._data = data
        self._items = item_parameters
        self._layers = layers
        self._factor_weight = np.float32(factor_weight)
        self._neighbours = neighbours
        self._factor_count = item_parameters.factors.shape[1]
        self._users = self.fold(data.matrix.all_profiles()) if users is None else users
        norms = np.linalg.norm(item_parameters.factors, axis=1, keepdims=True)
        self._unit: Float32 = (item_parameters.factors / np.where(norms > 0, norms, 1.0)).astype(
            np.float32
        )

    @classmethod
    def is_saved(cls, folder: Path) -> bool:
        """Returns whether a model's folder contains a scorer of this class."""
        return (folder / _FOLDER / _SCALARS).exists()

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a scorer written by `save`; the arrays are memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        arrays_folder = folder / _FOLDER
        items = data.matrix.item_count
        try:
            raw = parse_json((arrays_folder / _SCALARS).read_bytes(), _SCALARS)
            factor_weight = float(raw["factor_weight"])
            hidden_layers, has_products = int(raw["hidden_layers"]), bool(raw["products"])
            has_neighbours = bool(raw["neighbours"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise ArtifactError(f"{_SCALARS}: {error!r}") from error
        if not np.isfinite(factor_weight) or not 0 <= hidden_layers < 100:
            raise ArtifactError(f"{_SCALARS}: a number is out of range")

        def load(name: str, *shape: int | None) -> Float32:
            array = load_array(arrays_folder / f"{name}.npy", np.float32, shape)
            if not np.isfinite(array).all():
                raise ArtifactError(f"{name}.npy: a value is not finite")
            return array

        factors, set_inputs = load("factors", items, None), load("set_inputs", items, None)
        k, e = factors.shape[1], set_inputs.shape[1]
        item_parameters = ItemParameters(
            factors,
            load("variances", items, k),
            load("offsets", items),
            set_inputs,
            load("set_outputs", items, e),
            load("ridge", k + 1),
        )
        item_part = load("item_part", items, None)
        width = item_part.shape[1]
        user_weights = load("user_weights", k + e, width)
        product_weights = load("product_weights", k, width) if has_products else None
        hidden = []
        for layer in range(hidden_layers):
            weights = load(f"hidden_weights_{layer}", width, None)
            width = weights.shape[1]
            hidden.append((weights, load(f"hidden_biases_{layer}", width)))
        layers = Layers(
            user_weights, item_part, product_weights, tuple(hidden), load("output", width)
        )
        neighbours = NeighbourTerm.load(arrays_folder, data) if has_neighbours else None
        users = load("users", data.matrix.user_count, k + 1 + e)
        return cls(data, item_parameters, layers, factor_weight, neighbours, users)

    def save(self, folder: Path) -> None:
        """Writes the arrays to a model's folder."""
        arrays_folder = folder / _FOLDER
        arrays_folder.mkdir(parents=True, exist_ok=True)
        item_parameters, layers = self._items, self._layers
        arrays = {
            "factors": item_parameters.factors,
            "variances": item_parameters.variances,
            "offsets": item_parameters.offsets,
            "set_inputs": item_parameters.set_inputs,
            "set_outputs": item_parameters.set_outputs,
            "ridge": item_parameters.ridge,
            "user_weights": layers.user_weights,
            "item_part": layers.item_part,
            "output": layers.output,
            "users": self._users,
        }
        if layers.product_weights is not None:
            arrays["product_weights"] = layers.product_weights
        for layer, (weights, biases) in enumerate(layers.hidden):
            arrays[f"hidden_weights_{layer}"] = weights
            arrays[f"hidden_biases_{layer}"] = biases
        for name, array in arrays.items():
            save_array(arrays_folder / f"{name}.npy", array)
        if self._neighbours is not None:
            self._neighbours.save(arrays_folder)
        scalars = {
            "factor_weight": float(self._factor_weight),
            "hidden_layers": len(layers.hidden),
            "products": layers.product_weights is not None,
            "neighbours": self._neighbours is not None,
        }
        (arrays_folder / _SCALARS).write_text(json.dumps(scalars, allow_nan=False) + "\n")

    def fold(self, profiles: Profiles) -> Float32:
        """Folds in users: returns (p, b, s) of each, or 0 for a user without ratings.

        Args:
            profiles: The profiles of B users.

        Returns:
            The vectors (float32, B × (k + 1 + e)).
        """
        item_parameters, k = self._items, self._factor_count
        vectors = np.zeros(
            (len(profiles), k + 1 + item_parameters.set_inputs.shape[1]), dtype=np.float32
        )
        for row, (start, end) in enumerate(pairwise(profiles.indptr.tolist())):
            if start == end:
                continue
            items = profiles.items[start:end]
            design = np.ones((len(items), k + 1), dtype=np.float32)
            design[:, :k] = item_parameters.factors[items]
            normal = design.T @ design
            diagonal = np.einsum("ii->i", normal)
            diagonal += item_parameters.ridge
            diagonal[:k] += item_parameters.variances[items].sum(axis=0)
            targets = profiles.ratings[start:end] - item_parameters.offsets[items]
            vectors[row, : k + 1] = np.linalg.solve(normal, targets @ design)
            encoded = item_parameters.set_inputs[items].sum(axis=0)
            vectors[row, k + 1 :] = encoded / np.float32(np.sqrt(len(items) + 1.0))
        return vectors

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        count = self._data.matrix.item_count if items is None else len(items)
        scores = np.empty((len(profiles), count), dtype=np.float32)
        vectors = self._vectors(profiles)
        for first in range(0, count, _MAX_PAIRS):
            part = slice(first, min(first + _MAX_PAIRS, count))
            chosen = part if items is None else items[part]
            for row in range(len(profiles)):
                scores[row, part] = self._score_user(vectors[row], chosen)
        if self._neighbours is not None:
            scores += self._neighbours.score(profiles, items)
        empty = np.flatnonzero(profiles.counts == 0)
        if len(empty):
            # For a user without ratings, every rating predictor returns the baseline.
            scores[empty] = self._data.baseline.score(profiles.take(empty), items)
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        vectors = self._vectors(profiles)
        scores = np.empty(items.shape, dtype=np.float32)
        step = max(1, _MAX_PAIRS // max(1, items.shape[1]))
        for first in range(0, len(items), step):
            part = slice(first, first + step)
            scores[part] = self._score_user_items(vectors[part], items[part])
        if self._neighbours is not None:
            scores += self._neighbours.score_pairs(profiles, items)
        empty = np.flatnonzero(profiles.counts == 0)
        if len(empty):
            baseline = self._data.baseline
            scores[empty] = baseline.item_bias[items[empty]] + np.float32(baseline.mean)
        return scores

    def similarities(self, item: int) -> Float32:
        """See `ComparesItems.similarities`; the cosine similarity of the factors."""
        row: Float32 = np.clip(self._unit @ self._unit[item], -1.0, 1.0)
        row[item] = 1.0
        return row

    def _vectors(self, profiles: Profiles) -> Float32:
        """Returns the vector of each user; see `user_vectors`."""
        return user_vectors(self._users, profiles, self.fold)

    def _score_user(self, vector: Float32, items: Int32 | slice) -> Float32:
        """Returns the scores of one user, without the neighbour term (float32, C)."""
        item_parameters, layers, k = self._items, self._layers, self._factor_count
        p, s = vector[:k], vector[k + 1 :]
        q = item_parameters.factors[items]
        layer = np.concatenate([p, s]) @ layers.user_weights + layers.item_part[items]
        if layers.product_weights is not None:
            layer += q @ (p[:, None] * layers.product_weights)
        additions = self._perceptron(layer) + q @ p + item_parameters.set_outputs[items] @ s
        scores: Float32 = (
            item_parameters.offsets[items] + vector[k] + self._factor_weight * additions
        )
        return scores

    def _score_user_items(self, vectors: Float32, items: Int32) -> Float32:
        """Returns the scores of each user's items, without the neighbour term (float32, B × C)."""
        item_parameters, layers, k = self._items, self._layers, self._factor_count
        p, s = vectors[:, :k], vectors[:, k + 1 :]
        q = item_parameters.factors[items]
        user = np.hstack([p, s]) @ layers.user_weights
        layer = layers.item_part[items]
        layer += user[:, None, :]
        if layers.product_weights is not None:
            layer += q @ (p[:, :, None] * layers.product_weights)
        additions = self._perceptron(layer.reshape(-1, layer.shape[2])).reshape(items.shape)
        additions += (q @ p[:, :, None])[:, :, 0]
        additions += (item_parameters.set_outputs[items] @ s[:, :, None])[:, :, 0]
        scores: Float32 = item_parameters.offsets[items] + vectors[:, k, None]
        scores += self._factor_weight * additions
        return scores

    def _perceptron(self, layer: Float32) -> Float32:
        """Computes the output of the MLP from the first layer's pre-activations.

        Args:
            layer: The pre-activations, which are overwritten (float32, n × h).

        Returns:
            The output (float32, n).
        """
        np.maximum(layer, 0.0, out=layer)
        for weights, biases in self._layers.hidden:
            layer = layer @ weights
            layer += biases
            np.maximum(layer, 0.0, out=layer)
        result: Float32 = layer @ self._layers.output
        return result
