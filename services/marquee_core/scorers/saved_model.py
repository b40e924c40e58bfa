"""Scores with a TensorFlow SavedModel through its signatures.

Each model is a vector for the user, a fixed side for the items, and a score of the two:

    user_vectors(users int32[B]) → float32[B, d]                 of known users
    fold_in(items int32[B, L], ratings float32[B, L]) → float32[B, d]   items padded with -1
    score_all(user_vectors float32[B, d]) → float32[B, items]    stars
    score(user_vectors float32[B, d], items int32[C]) → float32[B, C]
    item_vectors() → float32[items, e]                            for similarities

Batches, lengths and candidates are padded to powers of two, so that few shapes are ever seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.scorer import ReleaseData

SIGNATURES = ("user_vectors", "fold_in", "score_all", "score", "item_vectors")
PRODUCTS = "item_products"
PADDING = -1
# What a perceptron keeps of more users at once leaves the cache, and TensorFlow's product with a
# sparse matrix slows down; products of vectors only gain.
MAX_BATCH = 16
_PRODUCTS_BATCH = 32
_LEAST_LENGTH = 16
_WARM_LENGTHS = (16, 32, 64, 128, 256)


class SavedModelScorer:
    """A model of stars in a SavedModel."""

    output = Output.STARS

    def __init__(self, model: Any, data: ReleaseData) -> None:
        """Takes a loaded SavedModel, or a module with the same signatures.

        Raises:
            ArtifactError: A signature is missing, or the model is of another size.
        """
        self._model = model
        self._data = data
        try:
            self._functions = {name: model.signatures[name] for name in SIGNATURES}
            vectors = self._call("item_vectors")
        except (KeyError, AttributeError, tf.errors.OpError) as error:
            raise ArtifactError(f"not a SavedModel of ours: {error}") from error
        if len(vectors) != data.matrix.item_count:
            raise ArtifactError(f"the model has {len(vectors)} items")
        # Modules whose scores are products have this signature besides.
        if PRODUCTS in model.signatures:
            self._functions[PRODUCTS] = model.signatures[PRODUCTS]
        self._max_batch = _PRODUCTS_BATCH if PRODUCTS in self._functions else MAX_BATCH
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._item_vectors = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a SavedModel.

        Raises:
            ArtifactError: The folder is not one, or its signatures are not ours.
        """
        try:
            model = tf.saved_model.load(str(folder))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise ArtifactError(f"{folder.name}: {error}") from error
        return cls(model, data)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        count = self._data.matrix.item_count if items is None else len(items)
        scores = np.empty((len(profiles), count), dtype=np.float32)
        empty = profiles.counts == 0
        for places, vectors_of, batch in self._kinds(profiles):
            for first in range(0, len(places), batch):
                part = places[first : first + batch]
                vectors = vectors_of(profiles.take(part))
                scores[part] = self._scores(vectors, items)[: len(part)]
        if empty.any():
            # Of whom nothing is known, every model says what the baseline says.
            places = np.flatnonzero(empty)
            scores[places] = self._data.baseline.score(profiles.take(places), items)
        return scores

    def item_products(self) -> Float32 | None:
        """As `ScoresByProduct.item_products`: the item vectors and the offsets, side by side."""
        return self._call(PRODUCTS) if PRODUCTS in self._functions else None

    def user_products(self, profiles: Profiles) -> Float32:
        """As `ScoresByProduct.user_products`."""
        parts: list[tuple[Int64, Float32]] = []
        for places, vectors_of, batch in self._kinds(profiles):
            for first in range(0, len(places), batch):
                part = places[first : first + batch]
                parts.append((part, vectors_of(profiles.take(part))[: len(part)]))
        order = np.argsort(np.concatenate([places for places, _ in parts]), kind="stable")
        vectors = np.concatenate([found for _, found in parts])[order]
        return np.hstack([vectors, np.ones((len(vectors), 1), np.float32)])

    def similarities(self, item: int) -> Float32 | None:
        """Cosines of the item vectors; 1 to itself."""
        row: Float32 = np.clip(self._item_vectors @ self._item_vectors[item], -1.0, 1.0)
        row[item] = 1.0
        return row

    def warm_up(self) -> None:
        """Runs the shapes that requests will have."""
        size = 1
        while size <= self._max_batch:
            vectors = self._call("user_vectors", users=np.zeros(size, dtype=np.int32))
            self._scores(vectors, None)
            size *= 2
        for length in _WARM_LENGTHS:
            items = np.full((1, length), PADDING, dtype=np.int32)
            items[0, 0] = 0
            ratings = np.full((1, length), self._data.baseline.mean, dtype=np.float32)
            self._call("fold_in", items=items, ratings=ratings)

    def _kinds(
        self, profiles: Profiles
    ) -> tuple[tuple[Int64, Callable[[Profiles], Float32], int], ...]:
        """Places of trained users and of folded ones, what makes their vectors, how many at once.

        To fold takes memory for each rating.
        """
        rated = profiles.counts > 0
        return (
            (np.flatnonzero(rated & ~profiles.folded), self._known_vectors, self._max_batch),
            (np.flatnonzero(rated & profiles.folded), self._folded_vectors, MAX_BATCH),
        )

    def _known_vectors(self, profiles: Profiles) -> Float32:
        users = np.zeros(_padded(len(profiles)), dtype=np.int32)
        users[: len(profiles)] = profiles.user_index
        return self._call("user_vectors", users=users)

    def fold(self, profiles: Profiles) -> Float32:
        """The vectors of users, from their ratings alone (float32, B × d)."""
        return self._folded_vectors(profiles)[: len(profiles)]

    def _folded_vectors(self, profiles: Profiles) -> Float32:
        size = _padded(len(profiles))
        length = max(_LEAST_LENGTH, _padded(int(profiles.counts.max())))
        items = np.full((size, length), PADDING, dtype=np.int32)
        ratings = np.zeros((size, length), dtype=np.float32)
        places = np.arange(len(profiles.items)) - np.repeat(profiles.indptr[:-1], profiles.counts)
        items[profiles.rows, places] = profiles.items
        ratings[profiles.rows, places] = profiles.ratings
        return self._call("fold_in", items=items, ratings=ratings)

    def _scores(self, vectors: Float32, items: Int32 | None) -> Float32:
        if items is None:
            return self._call("score_all", user_vectors=vectors)
        padded = np.zeros(_padded(max(1, len(items))), dtype=np.int32)
        padded[: len(items)] = items
        return self._call("score", user_vectors=vectors, items=padded)[:, : len(items)]

    def _call(self, name: str, **arguments: Any) -> Float32:
        tensors = {key: tf.constant(value) for key, value in arguments.items()}
        (result,) = self._functions[name](**tensors).values()
        values: Float32 = result.numpy()
        return values


def _padded(size: int) -> int:
    """The next power of two."""
    return 1 << max(0, size - 1).bit_length()
