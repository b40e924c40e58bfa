"""Measures the scoring core in a subprocess: the code of the services, without RPC.

Prints its results as one line of JSON. `bench.sections.core` runs it with a single thread.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.release import COPIES
from bench.report import Row, Target
from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.ratings import Profiles, RatingsMatrix
from marquee_core.release.contents import open_release
from marquee_core.release.manifest import EXACT
from marquee_core.release.store import ReleaseStore
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.config import load_config
from marquee_core.scorers.neighbours import Neighbours
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_core.scorers.user_cf import UserCFConfig, UserResiduals
from marquee_services.cf.models import CF_SCORERS
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.loading import load_index
from marquee_services.scoring.plan import Query

_FACTORS = 64
_TOP = 20
_BATCHES = (1, 8, 32)
_USERS = 64
_RATED = 30
_DAMPING = (5.0, 5.0, 2)
_CORE = Target(">=", 0.7)
_SPARSE = Target("<=", 1.5)
_SEED = 0


def factor_engine(items: int) -> tuple[Engine, Float32]:
    """Makes an engine with one factor model and a large catalogue.

    The model is a TensorFlow module of the trainer, used through the inference service's scorer and
    with the same signatures as a SavedModel.

    Args:
        items: Number of items.

    Returns:
        The engine and the item factors (float32, items × factors).
    """
    from marquee_services.inference.models import limit_threads
    from marquee_trainer.models.neural.dot_product_modules import FoldInConfig, LinearModule
    from marquee_trainer.models.neural.scoring_module import FittedScorer

    limit_threads(1)
    random = np.random.default_rng(_SEED)
    factors = random.standard_normal((items, _FACTORS), dtype=np.float32)
    users = np.repeat(np.arange(_USERS, dtype=np.int32), _RATED)
    rated = random.choice(items, size=len(users), replace=False).astype(np.int32)
    stars = random.integers(1, 6, size=len(users)).astype(np.float32)
    matrix = RatingsMatrix.of(users, rated, stars, _USERS, items)
    data = ReleaseData(matrix, Baseline.fit(matrix, *_DAMPING))
    fold_in = FoldInConfig(ridge=1.0, ridge_per_rating=0.0, bias_ridge=5.0)
    module = LinearModule(factors, data.baseline.item_bias.astype(np.float32), fold_in)
    scorer = FittedScorer(module, data).scorer
    index = load_index(Path(), scorer, {"kind": EXACT})
    assert index is not None
    return Engine("bench", data, {"mf": scorer}, {"mf": index}), factors


def measure_factors(items: int, rounds: int) -> tuple[list[Row], list[str]]:
    """Measures exact retrieval of the top 20 from a large catalogue for several batch sizes.

    Args:
        items: Number of items.
        rounds: Rounds of each comparison.

    Returns:
        The rows of the table and its notes.
    """
    engine, factors = factor_engine(items)
    flat = factors.ravel()
    across = np.ascontiguousarray(factors.T)
    random = np.random.default_rng(_SEED + 1)
    none = np.empty(0, np.int32), np.empty(0, np.float32)
    rows = []
    for batch in _BATCHES:
        queries = [Query(user, *none, None) for user in range(batch)]
        vectors = random.standard_normal((batch, _FACTORS), dtype=np.float32)
        out = np.empty((batch, items), np.float32)
        limits: list[Callable[[], Any]] = [
            _bind(np.matmul, vectors, factors.T, out),
            _bind(np.matmul, vectors, across, out),
        ]
        if batch == 1:
            limits = [_bind(np.dot, flat, flat), _bind(np.sum, flat)]
        served, plain, *references = interleaved(
            [
                _bind(engine.retrieve, queries, (), _TOP, None),
                _bind(_plain_top, vectors, across, out),
                *limits,
            ],
            rounds,
        )
        reference = min(references)
        limit = "reading the factors" if batch == 1 else "gemm"
        name = f"exact top {_TOP} of {items:,}, batch of {batch}"
        per_user = 1e3 / batch
        rows += [
            Row(
                f"{name}, against {limit}",
                served * per_user,
                "ms/user",
                reference * per_user,
                reference / served,
                _CORE,
            ),
            Row(
                f"{name}: NumPy product and top_indexes",
                plain * per_user,
                "ms/user",
                reference * per_user,
                reference / plain,
            ),
        ]
    speed = flat.nbytes / interleaved([_bind(np.sum, flat)], rounds)[0]
    return rows, [
        f"measured: Engine.retrieve for a model with {_FACTORS} factors; ratio: reference / "
        "measured",
        f"memory read bandwidth: {speed / 1e9:.1f} GB/s",
    ]


def measure_neighbours(store: str, release_id: str, users: int, rounds: int) -> list[Row]:
    """Measures user and item CF for one user at a time against the bare sparse product.

    Args:
        store: URL of the release store.
        release_id: The release.
        users: Number of users.
        rounds: Rounds of each comparison.
    """
    files, _ = open_release(ReleaseStore(store), release_id, "cf", Path(store).parent / COPIES)
    data = files.data
    random = np.random.default_rng(_SEED)
    chosen = random.permutation(data.matrix.user_count)[:users]
    profiles = [data.matrix.profiles([user]) for user in chosen]
    of_items = Neighbours.load(files.model_folder("item_cf"), data.matrix.item_count)
    of_users = Neighbours.load(files.model_folder("user_cf"), data.matrix.user_count)
    config = load_config(files.model_folder("user_cf"), UserCFConfig)
    residuals_by_user = UserResiduals(data, config).ratings.rows.T
    products: dict[str, tuple[Any, list[tuple[Int32, Float32]]]] = {
        "item_cf": (
            of_items.matrix().tocsc(),
            [(p.items, data.baseline.residuals(p)) for p in profiles],
        ),
        "user_cf": (residuals_by_user, [of_users.row(int(user)) for user in chosen]),
    }
    rows = []
    for name, (matrix, vectors) in products.items():
        scorer = CF_SCORERS[name](files.model_folder(name), data)
        whole = matrix.tocsr()
        dense = [_dense(matrix.shape[1], *vector) for vector in vectors]
        served, part, full = interleaved(
            [
                _bind(_score_each, scorer, profiles),
                _bind(_multiply_columns, matrix, vectors),
                _bind(_multiply, whole, dense),
            ],
            rounds,
        )
        reference, scale = min(part, full), 1e6 / len(profiles)
        rows.append(
            Row(
                f"{name}, one user, {data.matrix.item_count:,} items",
                served * scale,
                "µs",
                reference * scale,
                served / reference,
                _SPARSE,
            )
        )
    return rows


def interleaved(functions: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Times functions alternately over several rounds, after a warm-up round.

    Returns:
        The median duration of each function in seconds.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 1):
        for function, found in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            if number:
                found.append(time.perf_counter() - start)
    return [float(np.median(found)) for found in seconds]


def _plain_top(vectors: Float32, across: Float32, out: Float32) -> list[Int64]:
    return [top_indexes(row, _TOP) for row in np.matmul(vectors, across, out)]


def _score_each(scorer: Scorer, profiles: Sequence[Profiles]) -> list[Float32]:
    return [scorer.score(profile) for profile in profiles]


def _multiply_columns(matrix: Any, vectors: Sequence[tuple[Int32, Float32]]) -> list[Float32]:
    return [matrix[:, columns] @ values for columns, values in vectors]


def _multiply(matrix: Any, vectors: Sequence[Float32]) -> list[Float32]:
    return [matrix @ vector for vector in vectors]


def _dense(size: int, places: Int32, values: Float32) -> Float32:
    vector = np.zeros(size, np.float32)
    vector[places] = values
    return vector


def _bind(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def main() -> None:
    """Reads the request from the first argument (JSON), and prints the results as JSON."""
    request = json.loads(sys.argv[1])
    rows, notes = measure_factors(request["items"], request["rounds"])
    rows += measure_neighbours(
        request["store"], request["release_id"], request["cf_users"], request["rounds"]
    )
    notes.append(
        "CF reference: the faster of M[:, columns] @ x and M @ x, with the same nonzeros; "
        "ratio: measured / reference"
    )
    sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows], "notes": notes}) + "\n")


if __name__ == "__main__":
    main()
