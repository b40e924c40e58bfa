"""Rating predictors whose predictions are dot products of user and item vectors, in NumPy.

Matrix factorization and the autoencoders are trained with TensorFlow, but a fitted model consists
of a few arrays. They are served without TensorFlow, whose overhead per call exceeds the cost of
these products.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.ridge import solve_ridge
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.user_vectors import user_vectors

_FOLDER = "dot_product"
_KIND = "fold_in.json"


class FoldIn(Protocol):
    """Computes a user's vector from the user's ratings."""

    def vector(self, items: Int32, ratings: Float32) -> Float32:
        """Returns the vector of a user (float32, d).

        Args:
            items: The rated items, at least one (int32, n).
            ratings: The ratings in stars (float32, n).
        """

    def save(self, folder: Path) -> None:
        """Writes the parameters to a folder."""


@dataclass(frozen=True)
class RidgePenalties:
    """The penalties of `RidgeFoldIn`.

    Attributes:
        ridge: The L2 penalty of each factor.
        ridge_per_rating: The additional L2 penalty of each factor per rating.
        bias_ridge: The L2 penalty of the bias.
    """

    ridge: float
    ridge_per_rating: float
    bias_ridge: float


@dataclass(frozen=True, eq=False)
class RidgeFoldIn:
    """A ridge regression of the user's ratings on the vectors of the rated items.

    Attributes:
        item_vectors: The items' factors, then 1 for the user's bias (float32, items × d).
        offsets: The prediction for a user vector of 0, in stars (float32, items).
        penalties: The penalties.
    """

    item_vectors: Float32
    offsets: Float32
    penalties: RidgePenalties

    def vector(self, items: Int32, ratings: Float32) -> Float32:
        """See `FoldIn.vector`."""
        design, targets = self.item_vectors[items], ratings - self.offsets[items]
        penalties = np.full(design.shape[1], self.penalties.bias_ridge, dtype=np.float32)
        penalties[:-1] = self.penalties.ridge + self.penalties.ridge_per_rating * len(items)
        return solve_ridge(design, targets, penalties)

    def save(self, folder: Path) -> None:
        """See `FoldIn.save`."""
        text = json.dumps({"kind": "ridge", **asdict(self.penalties)}, allow_nan=False)
        (folder / _KIND).write_text(text + "\n")


@dataclass(frozen=True)
class EncoderScale:
    """The scaling of an encoder's input.

    Attributes:
        mean_count: n̄, the mean number of ratings in an input.
        damping: c in the scale √((n̄ + c) / (n + c)) of an input with n ratings.
        user_damping: λ_u of the baseline's user bias, in ratings.
    """

    mean_count: float
    damping: float
    user_damping: float


@dataclass(frozen=True, eq=False)
class EncoderFoldIn:
    """The encoder of U-AutoRec: h = sigmoid(g Σ_i ((r_i − b_ui) v_i + v'_i) + m), then b_u.

    Attributes:
        encoder: v (float32, items × h).
        set_encoder: v', which encodes the set of rated items (float32, items × h).
        bias: m (float32, h).
        item_means: μ + b_i of the baseline, in stars (float32, items).
        scale: The scaling of the input.
    """

    encoder: Float32
    set_encoder: Float32
    bias: Float32
    item_means: Float32
    scale: EncoderScale

    def vector(self, items: Int32, ratings: Float32) -> Float32:
        """See `FoldIn.vector`."""
        scale, count = self.scale, len(items)
        deviations = ratings - self.item_means[items]
        user_bias = deviations.sum() / np.float32(count + scale.user_damping)
        total = (deviations - user_bias) @ self.encoder[items]
        total += self.set_encoder[items].sum(axis=0)
        total *= np.float32(np.sqrt((scale.mean_count + scale.damping) / (count + scale.damping)))
        vector = np.empty(len(total) + 1, dtype=np.float32)
        vector[:-1] = 1.0 / (1.0 + np.exp(-np.clip(total + self.bias, -80.0, 80.0)))
        vector[-1] = user_bias
        return vector

    def save(self, folder: Path) -> None:
        """See `FoldIn.save`."""
        text = json.dumps({"kind": "encoder", **asdict(self.scale)}, allow_nan=False)
        (folder / _KIND).write_text(text + "\n")
        for name in ("encoder", "set_encoder", "bias"):
            save_array(folder / f"{name}.npy", getattr(self, name))


class DotProductScorer:
    """Predicts offset + user vector · item vector."""

    output = Output.STARS

    def __init__(
        self,
        data: ReleaseData,
        item_vectors: Float32,
        offsets: Float32,
        fold_in: FoldIn,
        users: Float32 | None = None,
    ) -> None:
        """Creates a scorer from the parameters of a fitted model.

        Args:
            data: The training ratings and their baseline.
            item_vectors: The items' factors, then 1 for the user's bias (float32, items × d).
            offsets: The prediction for a user vector of 0, in stars (float32, items).
            fold_in: Computes user vectors.
            users: The vectors of the known users (float32, users × d); None to fold them in.
        """
        self._data = data
        self._item_vectors = item_vectors
        self._offsets = offsets
        self._fold_in = fold_in
        self._users = self.fold(data.matrix.all_profiles()) if users is None else users
        factors = item_vectors[:, :-1]
        norms = np.linalg.norm(factors, axis=1, keepdims=True)
        self._unit: Float32 = (factors / np.where(norms > 0, norms, 1.0)).astype(np.float32)

    @classmethod
    def is_saved(cls, folder: Path) -> bool:
        """Returns whether a model's folder contains a scorer of this class."""
        return (folder / _FOLDER / _KIND).exists()

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a scorer written by `save`; the arrays are memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        arrays_folder = folder / _FOLDER
        items = data.matrix.item_count
        item_vectors = load_array(arrays_folder / "item_vectors.npy", np.float32, (items, None))
        width = item_vectors.shape[1]
        offsets = load_array(arrays_folder / "offsets.npy", np.float32, (items,))
        users = load_array(arrays_folder / "users.npy", np.float32, (data.matrix.user_count, width))
        for name, array in (("item_vectors", item_vectors), ("offsets", offsets)):
            if not np.isfinite(array).all():
                raise ArtifactError(f"{name}.npy: a value is not finite")
        fold_in = _load_fold_in(arrays_folder, item_vectors, offsets, data)
        return cls(data, item_vectors, offsets, fold_in, users)

    def save(self, folder: Path) -> None:
        """Writes the arrays to a model's folder."""
        arrays_folder = folder / _FOLDER
        arrays_folder.mkdir(parents=True, exist_ok=True)
        save_array(arrays_folder / "item_vectors.npy", self._item_vectors)
        save_array(arrays_folder / "offsets.npy", self._offsets)
        save_array(arrays_folder / "users.npy", self._users)
        self._fold_in.save(arrays_folder)

    def fold(self, profiles: Profiles) -> Float32:
        """Folds in users: returns their vectors, 0 for a user without ratings (float32, B × d)."""
        vectors = np.zeros((len(profiles), self._item_vectors.shape[1]), dtype=np.float32)
        for row, (start, end) in enumerate(pairwise(profiles.indptr.tolist())):
            if start < end:
                vectors[row] = self._fold_in.vector(
                    profiles.items[start:end], profiles.ratings[start:end]
                )
        return vectors

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        item_vectors, offsets = self._item_vectors, self._offsets
        if items is not None:
            item_vectors, offsets = item_vectors[items], offsets[items]
        scores: Float32 = self._vectors(profiles) @ item_vectors.T
        scores += offsets
        empty = np.flatnonzero(profiles.counts == 0)
        if len(empty):
            # For a user without ratings, every rating predictor returns the baseline.
            scores[empty] = self._data.baseline.score(profiles.take(empty), items)
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        vectors = self._vectors(profiles)
        scores: Float32 = (self._item_vectors[items] @ vectors[:, :, None])[:, :, 0]
        scores += self._offsets[items]
        empty = np.flatnonzero(profiles.counts == 0)
        if len(empty):
            baseline = self._data.baseline
            scores[empty] = baseline.item_bias[items[empty]] + np.float32(baseline.mean)
        return scores

    def item_products(self) -> Float32 | None:
        """See `ScoresByProduct.item_products`; the last column holds the offsets."""
        return np.hstack([self._item_vectors, self._offsets[:, None]])

    def user_products(self, profiles: Profiles) -> Float32:
        """See `ScoresByProduct.user_products`; the last column is 1."""
        ones = np.ones((len(profiles), 1), np.float32)
        return np.hstack([self._vectors(profiles), ones])

    def similarities(self, item: int) -> Float32:
        """See `ComparesItems.similarities`; the cosine similarity of the item vectors."""
        row: Float32 = np.clip(self._unit @ self._unit[item], -1.0, 1.0)
        row[item] = 1.0
        return row

    def _vectors(self, profiles: Profiles) -> Float32:
        """Returns the vector of each user; see `user_vectors`."""
        return user_vectors(self._users, profiles, self.fold)


def _load_fold_in(
    folder: Path, item_vectors: Float32, offsets: Float32, data: ReleaseData
) -> FoldIn:
    """Loads the fold-in from a folder.

    Raises:
        ArtifactError: A file is missing or damaged.
    """
    try:
        raw = parse_json((folder / _KIND).read_bytes(), _KIND)
        kind = raw.pop("kind")
        numbers = {str(name): float(value) for name, value in raw.items()}
        if kind == "ridge":
            return RidgeFoldIn(item_vectors, offsets, RidgePenalties(**numbers))
        if kind != "encoder":
            raise ValueError(f"unknown kind {kind!r}")
        scale = EncoderScale(**numbers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ArtifactError(f"{_KIND}: {error!r}") from error
    shape = item_vectors.shape[0], item_vectors.shape[1] - 1
    return EncoderFoldIn(
        load_array(folder / "encoder.npy", np.float32, shape),
        load_array(folder / "set_encoder.npy", np.float32, shape),
        load_array(folder / "bias.npy", np.float32, shape[1:]),
        (data.baseline.item_bias + np.float32(data.baseline.mean)).astype(np.float32),
        scale,
    )
