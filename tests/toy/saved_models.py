"""SavedModels that fit the toy release, including faulty ones.

    python -m toy.saved_models KIND FOLDER

It imports TensorFlow, so tests run it in a separate process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from marquee_core.scorers.quiet_tensorflow import import_tensorflow
from toy.release import FACTORS, ITEMS, USERS

GOOD, ENDLESS, SOME_ITEMS, SOME_VISITORS = "good", "endless", "some-items", "some-visitors"
KINDS = (GOOD, ENDLESS, SOME_ITEMS, SOME_VISITORS)
FIRST_BAD_ITEM = 60
# The number of consecutive products of large matrices in ENDLESS, which take hours.
_PRODUCTS, _SIZE = 20_000, 3_000


def save(kind: str, folder: Path) -> None:
    """Save a SavedModel in a separate process.

    Args:
        kind: `GOOD`; `ENDLESS`, whose item vectors, which servers need to load it, take hours;
            `SOME_ITEMS`, which fails for some items as candidates; or
            `SOME_VISITORS`, which fails for visitors whose first rated item is
            `FIRST_BAD_ITEM` or later.
        folder: The folder to write to.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "toy.saved_models", kind, str(folder)]
    subprocess.run(command, check=True, env=environment)


def _save(kind: str, folder: Path) -> None:
    tf = import_tensorflow()
    random = np.random.default_rng(0)
    items = tf.Variable(random.normal(size=(ITEMS, FACTORS)).astype(np.float32))
    users = tf.Variable(random.normal(size=(USERS, FACTORS)).astype(np.float32))
    large = tf.Variable(np.eye(_SIZE if kind == ENDLESS else 1, dtype=np.float32))

    def stars(products: Any) -> Any:
        return 1.0 + 4.0 * tf.sigmoid(products)

    def user_vectors(users_: Any) -> Any:
        return tf.gather(users, users_)

    def fold_in(rated: Any, ratings: Any) -> Any:
        present = tf.cast(rated >= 0, tf.float32)
        vectors = tf.gather(items, tf.maximum(rated, 0))
        sums = tf.reduce_sum(vectors * (present * ratings)[:, :, None], axis=1)
        if kind == SOME_VISITORS:
            sums += tf.gather(tf.zeros(FIRST_BAD_ITEM), tf.maximum(rated[:, :1], 0))
        return sums / 5.0

    def score_all(vectors: Any) -> Any:
        return stars(tf.matmul(vectors, items, transpose_b=True))

    def score(vectors: Any, candidates: Any) -> Any:
        known = items[: ITEMS - 5] if kind == SOME_ITEMS else items
        return stars(tf.matmul(vectors, tf.gather(known, candidates), transpose_b=True))

    def item_vectors() -> Any:
        product = large
        if kind == ENDLESS:
            for _ in range(_PRODUCTS):
                product = tf.matmul(product, large)
        return items + product[0, 0] - 1.0

    module = tf.Module()
    module.variables_ = [items, users, large]
    vector, matrix = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
    numbers = tf.TensorSpec([None, None], tf.float32)
    signatures = {
        "user_vectors": (user_vectors, {"users_": vector}),
        "fold_in": (fold_in, {"rated": matrix, "ratings": numbers}),
        "score_all": (score_all, {"vectors": numbers}),
        "score": (score, {"vectors": numbers, "candidates": vector}),
        "item_vectors": (item_vectors, {}),
    }
    names = {"users_": "users", "rated": "items", "vectors": "user_vectors", "candidates": "items"}
    functions = {}
    for name, (function, specs) in signatures.items():
        named = [
            tf.TensorSpec(spec.shape, spec.dtype, names.get(argument, argument))
            for argument, spec in specs.items()
        ]
        functions[name] = tf.function(function).get_concrete_function(*named)
    tf.saved_model.save(module, str(folder), signatures=functions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    _save(arguments.kind, arguments.folder)
