"""Scores items by calling the signatures of a TensorFlow SavedModel.

A model computes a vector for each user and predicts ratings from the user vector and the fixed
parameters of the items. Its signatures are:

    user_vectors(users int32[B]) → float32[B, d]                    vectors of known users
    fold_in(items int32[B, L], ratings float32[B, L]) → float32[B, d]   items are padded with -1
    score_all(user_vectors float32[B, d]) → float32[B, items]       in stars
    score(user_vectors float32[B, d], items int32[C]) → float32[B, C]   in stars
    item_vectors() → float32[items, e]                              for item similarities
    item_products() → float32[items, d + 1]                         optional
    known_pairs(users int32[B], candidates int32[B, C]) → float32[B, C]         optional
    folded_pairs(items int32[B, L], ratings float32[B, L], candidates int32[B, C])
        → float32[B, C]                                             optional

`item_products` exists only in models whose scores are dot products: the score is its product with
the user vector extended by 1. `known_pairs` and `folded_pairs` predict different items for each
user, in stars, in one call.

Batch sizes, profile lengths and numbers of candidates are padded to powers of two, which limits the
number of distinct shapes that TensorFlow traces.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.quiet_tensorflow import import_tensorflow
from marquee_core.scorers.saved_model_check import check_saved_model
from marquee_core.scorers.scorer import ReleaseData

tf = import_tensorflow()

SIGNATURES = ("user_vectors", "fold_in", "score_all", "score", "item_vectors")
PRODUCTS = "item_products"
KNOWN_PAIRS, FOLDED_PAIRS = "known_pairs", "folded_pairs"
PADDING = -1
# Number of users scored together. With more, the activations of a perceptron exceed the processor's
# cache, and TensorFlow's sparse matrix product becomes slower. Dot products profit from larger
# batches.
MAX_BATCH = 16
_PRODUCTS_BATCH = 32
_MIN_LENGTH = 16
# Padded numbers of ratings in a request.
_WARM_UP_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
# Padded numbers of items on a page; the default page has 20 items.
_WARM_UP_PAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_WARM_UP_PAGE = 32
# The maximum number of warm-up calls that cover all items of a catalogue.
_MOST_PARTS = 100


class SavedModelScorer:
    """A rating predictor in a SavedModel."""

    output = Output.STARS

    def __init__(self, model: Any, data: ReleaseData) -> None:
        """Binds the signatures of a model.

        Args:
            model: A loaded SavedModel, or an object with the same `signatures`.
            data: The training ratings and their baseline.

        Raises:
            ArtifactError: A signature is missing, or the number of items is not that of the data.
        """
        self._model = model
        self._data = data
        try:
            self._functions = {name: model.signatures[name] for name in SIGNATURES}
            vectors = self._call("item_vectors")
        except (KeyError, AttributeError, tf.errors.OpError) as error:
            raise ArtifactError(
                f"not a SavedModel with the expected signatures: {error}"
            ) from error
        if len(vectors) != data.matrix.item_count:
            expected = data.matrix.item_count
            raise ArtifactError(f"the SavedModel has {len(vectors)} items, not {expected}")
        for name in (PRODUCTS, KNOWN_PAIRS, FOLDED_PAIRS):
            if name in model.signatures:
                self._functions[name] = model.signatures[name]
        self._max_batch = _PRODUCTS_BATCH if PRODUCTS in self._functions else MAX_BATCH
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._item_vectors = (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a SavedModel.

        Raises:
            ArtifactError: The folder contains no SavedModel, the model contains an operation or
                object that is not allowed, a signature is missing, or the number of items is not
                that of the data.
        """
        check_saved_model(folder)
        try:
            model = tf.saved_model.load(str(folder))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise ArtifactError(f"{folder.name}: {error}") from error
        return cls(model, data)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        count = self._data.matrix.item_count if items is None else len(items)
        scores = np.empty((len(profiles), count), dtype=np.float32)
        empty = profiles.counts == 0
        for rows, vectors_of, batch in self._batches(profiles):
            for first in range(0, len(rows), batch):
                part = rows[first : first + batch]
                vectors = vectors_of(profiles.take(part))
                scores[part] = self._scores(vectors, items)[: len(part)]
        if empty.any():
            # For a user without ratings, every rating predictor returns the baseline.
            rows = np.flatnonzero(empty)
            scores[rows] = self._data.baseline.score(profiles.take(rows), items)
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        scores = np.empty(items.shape, dtype=np.float32)
        if FOLDED_PAIRS not in self._functions:
            for row in range(len(profiles)):
                scores[row] = self.score(profiles.single(row), items[row])[0]
            return scores
        rated = profiles.counts > 0
        for rows, function in (
            (np.flatnonzero(rated & ~profiles.needs_fold_in), self._known_pairs),
            (np.flatnonzero(rated & profiles.needs_fold_in), self._folded_pairs),
        ):
            for first in range(0, len(rows), MAX_BATCH):
                part = rows[first : first + MAX_BATCH]
                candidates = np.zeros((_padded(len(part)), items.shape[1]), dtype=np.int32)
                candidates[: len(part)] = items[part]
                scores[part] = function(profiles.take(part), candidates)[: len(part)]
        empty = np.flatnonzero(~rated)
        if len(empty):
            baseline = self._data.baseline
            scores[empty] = baseline.item_bias[items[empty]] + np.float32(baseline.mean)
        return scores

    def item_products(self) -> Float32 | None:
        """See `ScoresByProduct.item_products`; the last column holds the offsets."""
        return self._call(PRODUCTS) if PRODUCTS in self._functions else None

    def user_products(self, profiles: Profiles) -> Float32:
        """See `ScoresByProduct.user_products`; the last column is 1."""
        parts: list[tuple[Int64, Float32]] = []
        for rows, vectors_of, batch in self._batches(profiles):
            for first in range(0, len(rows), batch):
                part = rows[first : first + batch]
                parts.append((part, vectors_of(profiles.take(part))[: len(part)]))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
        vectors = np.concatenate([vectors for _, vectors in parts])[order]
        return np.hstack([vectors, np.ones((len(vectors), 1), np.float32)])

    def similarities(self, item: int) -> Float32:
        """See `ComparesItems.similarities`; the cosine similarity of the item vectors."""
        row: Float32 = np.clip(self._item_vectors @ self._item_vectors[item], -1.0, 1.0)
        row[item] = 1.0
        return row

    def warm_up(self) -> None:
        """Runs the signatures once with each shape that requests use, and once with each item.

        This detects a model that fails for some shapes or items only. A model that scores pairs
        seldom scores the whole catalogue, so that is not run with large batches: TensorFlow would
        keep the memory of their activations.
        """
        has_pairs = FOLDED_PAIRS in self._functions
        size = 1
        while size <= (1 if has_pairs else self._max_batch):
            vectors = self._call("user_vectors", users=np.zeros(size, dtype=np.int32))
            self._scores(vectors, None)
            size *= 2
        for length in _WARM_UP_LENGTHS:
            items = np.full((1, length), PADDING, dtype=np.int32)
            items[0, 0] = 0
            ratings = np.full((1, length), self._data.baseline.mean, dtype=np.float32)
            self._call("fold_in", items=items, ratings=ratings)
            if has_pairs:
                candidates = np.zeros((1, _WARM_UP_PAGE), dtype=np.int32)
                self._call(FOLDED_PAIRS, items=items, ratings=ratings, candidates=candidates)
        self._warm_up_items(has_pairs)

    def _warm_up_items(self, has_pairs: bool) -> None:
        """Scores every item as a candidate, and folds in ratings of items across the catalogue."""
        count = self._data.matrix.item_count
        user = np.zeros(1, dtype=np.int32)
        vectors = self._call("user_vectors", users=user)
        for size in _WARM_UP_PAGES:
            self._scores(vectors, np.arange(min(size, count), dtype=np.int32))
        for items in _parts(count, max(_WARM_UP_PAGES[-1], -(-count // _MOST_PARTS))):
            self._scores(vectors, items)
            if has_pairs and KNOWN_PAIRS in self._functions:
                self._call(KNOWN_PAIRS, users=user, candidates=items[None, :])
        for items in _parts(count, _WARM_UP_LENGTHS[-1])[:_MOST_PARTS]:
            ratings = np.full((1, len(items)), self._data.baseline.mean, dtype=np.float32)
            self._call("fold_in", items=items[None, :], ratings=ratings)

    def _batches(
        self, profiles: Profiles
    ) -> tuple[tuple[Int64, Callable[[Profiles], Float32], int], ...]:
        """Splits users with ratings into those with trained vectors and those to fold in.

        Returns:
            For each of the two groups: the rows of the users in the profiles (int64, n), the
            function that computes their vectors, and the batch size. The memory of folding in
            grows with the ratings, so its batch size is never larger than `MAX_BATCH`.
        """
        rated = profiles.counts > 0
        return (
            (np.flatnonzero(rated & ~profiles.needs_fold_in), self._known_vectors, self._max_batch),
            (np.flatnonzero(rated & profiles.needs_fold_in), self._folded_vectors, MAX_BATCH),
        )

    def _known_vectors(self, profiles: Profiles) -> Float32:
        return self._call("user_vectors", users=_padded_users(profiles))

    def _known_pairs(self, profiles: Profiles, candidates: Int32) -> Float32:
        return self._call(KNOWN_PAIRS, users=_padded_users(profiles), candidates=candidates)

    def _folded_pairs(self, profiles: Profiles, candidates: Int32) -> Float32:
        items, ratings = _padded_ratings(profiles)
        return self._call(FOLDED_PAIRS, items=items, ratings=ratings, candidates=candidates)

    def fold(self, profiles: Profiles) -> Float32:
        """Folds in users: computes their vectors from their ratings (float32, B × d)."""
        return self._folded_vectors(profiles)[: len(profiles)]

    def _folded_vectors(self, profiles: Profiles) -> Float32:
        items, ratings = _padded_ratings(profiles)
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


def _parts(count: int, size: int) -> list[Int32]:
    """Splits the indexes below `count` into parts of `size`; the last two parts may overlap."""
    if count <= size:
        return [np.arange(count, dtype=np.int32)]
    starts = [*range(0, count - size, size), count - size]
    return [np.arange(start, start + size, dtype=np.int32) for start in starts]


def _padded_users(profiles: Profiles) -> Int32:
    """Returns the indexes of known users, padded with user 0 (int32)."""
    users = np.zeros(_padded(len(profiles)), dtype=np.int32)
    users[: len(profiles)] = profiles.user_index
    return users


def _padded_ratings(profiles: Profiles) -> tuple[Int32, Float32]:
    """Returns the users' rated items, padded with -1, and ratings (int32, float32; B × L)."""
    size = _padded(len(profiles))
    length = max(_MIN_LENGTH, _padded(int(profiles.counts.max())))
    items = np.full((size, length), PADDING, dtype=np.int32)
    ratings = np.zeros((size, length), dtype=np.float32)
    columns = np.arange(len(profiles.items)) - np.repeat(profiles.indptr[:-1], profiles.counts)
    items[profiles.rows, columns] = profiles.items
    ratings[profiles.rows, columns] = profiles.ratings
    return items, ratings


def _padded(size: int) -> int:
    """Returns the smallest power of two that is at least `size`."""
    return 1 << max(0, size - 1).bit_length()
