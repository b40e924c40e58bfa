"""The TensorFlow modules that are saved and served: plain operations, without Keras.

Their signatures are those of `marquee_core.scorers.saved_model`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles
from marquee_core.scorers.dot_product import (
    DotProductScorer,
)
from marquee_core.scorers.perceptron import PerceptronScorer
from marquee_core.scorers.saved_model import (
    FOLDED_PAIRS,
    KNOWN_PAIRS,
    MAX_BATCH,
    PRODUCTS,
    SavedModelScorer,
)
from marquee_core.scorers.scorer import ReleaseData

MAX_GRAPH_BYTES = 2**31 - 2**26
"""The largest size of the constants in a SavedModel: 2 GiB, less a margin for everything else."""

ArrayScorer: TypeAlias = DotProductScorer | PerceptronScorer
"""The scorers that serve a trained model from its arrays, without TensorFlow."""


class ScoringModule(tf.Module):  # type: ignore[misc]
    """A model in its served form: computes user vectors, and scores from a user vector and items.

    Attributes:
        width: d, the length of a user vector.
        items: The number of items.
        stored_width: The number of values stored for each known user.
        users: The stored values of all known users (float32, users × stored width).
        has_pairs: Whether the module can predict a few items per user without scoring all of them;
            if so, it implements `known_pairs` and `folded_pairs`.
    """

    has_pairs = False

    def __init__(self, width: int, items: int, stored_width: int | None = None) -> None:
        """Creates a module without known users.

        Args:
            width: The length of a user vector.
            items: The number of items.
            stored_width: The number of values to store for each known user; None for the whole
                vector.
        """
        super().__init__()
        self.width = width
        self.items = items
        self.stored_width = width if stored_width is None else stored_width
        empty = tf.zeros((1, self.stored_width))
        self.users = tf.Variable(empty, shape=(None, self.stored_width), trainable=False)

    def known_vectors(self, users: Any) -> Any:
        """Returns the vectors of known users: int32[B] → float32[B, d]."""
        return tf.gather(self.users, users)

    def store_users(self, profiles: Profiles, fold_in: Callable[[Profiles], Float32]) -> None:
        """Computes and stores the values of all known users, by folding them in like visitors.

        Args:
            profiles: The profiles of all users.
            fold_in: A function that computes the vectors of at most `MAX_BATCH` users, or the
                stored part of them (float32, B × stored width).
        """
        table = np.zeros((len(profiles), self.stored_width), dtype=np.float32)
        # Ordered by the number of ratings, so that batches need little padding.
        order = np.argsort(profiles.counts, kind="stable")
        for first in range(0, len(order), MAX_BATCH):
            part = order[first : first + MAX_BATCH]
            table[part] = fold_in(profiles.take(part))
        self.users.assign(table)

    @abstractmethod
    def score(self, vectors: Any, items: Any) -> Any:
        """Predicts stars for all pairs: float32[B, d], int32[C] → float32[B, C].

        `items` is None for all items.
        """

    @abstractmethod
    def fold_in(self, items: Any, ratings: Any) -> Any:
        """Computes user vectors from padded ratings: int32[B, L], float32[B, L] → float32[B, d]."""

    @abstractmethod
    def item_vectors(self) -> Any:
        """Returns item vectors for similarities: float32[items, e]."""

    def item_products(self) -> Any:
        """Returns item vectors whose product with (u, 1) is the score: float32[items, d + 1].

        None if the scores are not dot products.
        """
        return None

    def array_scorer(self, data: ReleaseData) -> ArrayScorer | None:  # noqa: ARG002
        """Returns the scorer in NumPy that serves the model; None to serve the SavedModel."""
        return None

    def known_pairs(self, users: Any, candidates: Any) -> Any:
        """Predicts a few items for each known user: int32[B], int32[B, C] → float32[B, C]."""
        raise NotImplementedError

    def folded_pairs(self, items: Any, ratings: Any, candidates: Any) -> Any:
        """Predicts a few items for each user from padded ratings.

        int32[B, L], float32[B, L], int32[B, C] → float32[B, C].
        """
        raise NotImplementedError

    def make_signatures(self) -> dict[str, Any]:
        """Traces the signatures as concrete functions, by name."""
        vectors = tf.TensorSpec((None, self.width), tf.float32)
        index = tf.TensorSpec((None,), tf.int32)
        grid, stars = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.float32)

        def concrete(function: Any, **specs: Any) -> Any:
            return tf.function(function).get_concrete_function(**specs)

        signatures = {
            "user_vectors": concrete(lambda users: {"r": self.known_vectors(users)}, users=index),
            "fold_in": concrete(
                lambda items, ratings: {"r": self.fold_in(items, ratings)},
                items=grid,
                ratings=stars,
            ),
            "score_all": concrete(
                lambda user_vectors: {"r": self.score(user_vectors, None)}, user_vectors=vectors
            ),
            "score": concrete(
                lambda user_vectors, items: {"r": self.score(user_vectors, items)},
                user_vectors=vectors,
                items=index,
            ),
            "item_vectors": concrete(lambda: {"r": self.item_vectors()}),
        }
        products = self.item_products()
        if products is not None:
            signatures[PRODUCTS] = concrete(lambda: {"r": self.item_products()})
        if self.has_pairs:
            signatures[KNOWN_PAIRS] = concrete(
                lambda users, candidates: {"r": self.known_pairs(users, candidates)},
                users=index,
                candidates=grid,
            )
            signatures[FOLDED_PAIRS] = concrete(
                lambda items, ratings, candidates: {
                    "r": self.folded_pairs(items, ratings, candidates)
                },
                items=grid,
                ratings=stars,
                candidates=grid,
            )
        return signatures


class FittedScorer:
    """A fitted module with its signatures, before it is saved.

    It scores with the same code that serves it.

    Attributes:
        module: The module.
        signatures: The signatures of the module, by name.
        scorer: The scorer that serves the model: the one in NumPy if the model has it, otherwise
            one on these signatures.
    """

    def __init__(self, module: ScoringModule, data: ReleaseData) -> None:
        """Traces the signatures and folds in all known users.

        Args:
            module: The module; the known users are stored in it.
            data: The data that it was fitted on.
        """
        self.module = module
        self.signatures = module.make_signatures()
        saved_model_scorer = SavedModelScorer(self, data)
        module.store_users(data.matrix.all_profiles(), saved_model_scorer.fold)
        self._arrays = module.array_scorer(data)
        self.scorer: SavedModelScorer | ArrayScorer = (
            saved_model_scorer if self._arrays is None else self._arrays
        )

    def save(self, folder: Path) -> None:
        """Writes a SavedModel, and the arrays of the scorer in NumPy if the model has one.

        TensorFlow writes the parameters of the items into one message, which cannot exceed 2 GiB.
        Larger models are saved only as arrays, which servers map into memory.

        Raises:
            ValueError: The model is larger and has no scorer in NumPy.
        """
        if self.graph_bytes <= MAX_GRAPH_BYTES:
            tf.saved_model.save(self.module, str(folder), signatures=self.signatures)
            _remove_random_id(folder)
        elif self._arrays is None:
            raise ValueError(
                f"the parameters take {self.graph_bytes:,} bytes, and a SavedModel holds at most "
                f"{MAX_GRAPH_BYTES:,}"
            )
        if self._arrays is not None:
            self._arrays.save(folder)

    @property
    def graph_bytes(self) -> int:
        """The size of the constants in the graph of a SavedModel, in bytes."""
        constants = {
            id(tensor): tensor.dtype.size * int(np.prod(tensor.shape, dtype=np.int64))
            for function in self.signatures.values()
            for tensor in function.captured_inputs
            if tensor.dtype != tf.resource
        }
        return sum(constants.values())


def _remove_random_id(folder: Path) -> None:
    """Removes the random id of a SavedModel, so that repeated trainings write identical files."""
    path = folder / "fingerprint.pb"
    fingerprint = FingerprintDef.FromString(path.read_bytes())
    fingerprint.ClearField("uuid")
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
