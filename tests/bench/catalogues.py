"""Measures the CF service's CPU time for a visitor in large catalogues, against a small one.

The models have random parameters of the usual size, because the values do not affect the time. The
module runs as a subprocess, with the request as JSON: `items` is a list of catalogue sizes, the
first of which is the reference.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np

from bench.report import Row, Target
from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_core.retrieval.ann import AnnConfig, AnnIndex
from marquee_core.retrieval.exact import ExactIndex, ItemIndex, item_products
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.bayesian_mf import BayesianMFConfig, BayesianMFScorer
from marquee_core.scorers.ease import EASEConfig, EASEScorer
from marquee_core.scorers.ials import IALSConfig, IALSScorer
from marquee_core.scorers.item_weights import ItemWeights
from marquee_core.scorers.posterior import Posterior
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_core.scorers.sketch import Sketch
from marquee_core.scorers.slit import SLITConfig, SLITScorer
from marquee_core.scorers.tail_weights import TailWeights
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.ranking import rank

_TARGET = Target("<=", 3.0)
_USERS, _RATINGS = 2_000, 100
_VISITORS, _VISITOR_RATINGS = 40, 30
_PAGE, _SHORTLIST = 20, 81
# Few samples of Bayesian MF and few sources in the tails of EASE and SLIT, so that a million items
# fit into memory.
_SAMPLES, _SKETCH_RANK, _TAIL_SOURCES = 8, 48, 16
# The size from which the trainer builds approximate indexes, their lists, and lists per search.
_ANN_ITEMS, _LISTS, _PROBES = 200_000, 1_024, 32
_WEIGHTS = (("ease", 30.6), ("slit", 49.1), ("bayesian_mf", 0.63), ("ials", 0.59))


def measure(sizes: list[int], rounds: int) -> tuple[list[Row], list[str]]:
    """Measures the median CPU time of ranking for a visitor in catalogues of several sizes.

    Args:
        sizes: Numbers of items; the first is the reference.
        rounds: Rounds of each measurement, after a warm-up.

    Returns:
        The rows of the table and its notes.
    """
    medians: list[list[float]] = [[] for _ in sizes]
    for size, found in zip(sizes, medians, strict=True):
        engine = make_engine(size)
        answer = rank_all if size <= GatewaySettings.dense_limit else retrieve_and_rank
        for number in range(rounds + 1):
            # New visitors in each round, because some of their vectors are cached.
            queries = visitors(engine, number)
            found.append(float(np.median([cpu_time(answer, engine, query) for query in queries])))
    reference = min(medians[0][1:]) * 1e3
    rows = []
    for size, found in zip(sizes, medians, strict=True):
        measured = min(found[1:]) * 1e3
        is_first = size == sizes[0]
        rows.append(
            Row(
                f"visitor with {_VISITOR_RATINGS} ratings, {size:,} items",
                measured,
                "ms",
                None if is_first else reference,
                None if is_first else measured / reference,
                None if is_first else _TARGET,
            )
        )
    note = (
        "in the CF service without RPC, one visitor at a time: EASE, SLIT, Bayesian MF "
        f"({_SAMPLES} samples) and iALS rank the items, and Bayesian MF predicts stars for the "
        f"best {_PAGE}"
    )
    return rows, [note]


def cpu_time(answer: Callable[[Engine, Query], None], engine: Engine, query: Query) -> float:
    """Returns the CPU time of an answer in seconds, which is its duration on an idle machine."""
    start = time.process_time()
    answer(engine, query)
    return time.process_time() - start


def rank_all(engine: Engine, query: Query) -> None:
    """Ranks all items, as the gateway does in a small catalogue."""
    rank(engine, [query], _PLAN)


def retrieve_and_rank(engine: Engine, query: Query) -> None:
    """Retrieves candidates and ranks them, as the gateway does in a large catalogue."""
    rank(engine, [query], replace(_PLAN, retrieve_count=GatewaySettings.candidates))


_PLAN = RankingPlan(_WEIGHTS, _PAGE, (), ("bayesian_mf",), _PAGE, _SHORTLIST)


def make_engine(items: int) -> Engine:
    """Makes an engine with the rankers that training on MovieLens 1M chooses."""
    random = np.random.default_rng(0)
    data = make_data(items, random)
    covered = np.arange(min(items, EASEConfig.max_items), dtype=np.int32)

    tail = make_tail(items, len(covered), random)

    def weights() -> ItemWeights:
        values = random.standard_normal((len(covered), len(covered)), dtype=np.float32)
        return ItemWeights(covered, values, items, tail)

    ones = np.ones(len(covered), np.float32)
    scorers: dict[str, Scorer] = {
        "ease": EASEScorer(data, EASEConfig(), weights(), ones),
        "slit": SLITScorer(data, SLITConfig(), weights()),
        "bayesian_mf": bayesian_mf(items, random),
        "ials": IALSScorer(data, IALSConfig(), _normal(random, items, IALSConfig.factors)),
    }
    indexes: dict[str, ItemIndex] = {}
    for name, scorer in scorers.items():
        vectors = item_products(scorer)
        if vectors is not None:
            indexes[name] = index_of(vectors)
    return Engine(f"{items} items", data, scorers, indexes)


def make_tail(items: int, core: int, random: np.random.Generator) -> TailWeights:
    """Makes sparse weights for the items without dense weights."""
    count = items - core
    size = count * _TAIL_SOURCES
    return TailWeights(
        np.arange(core, items, dtype=np.int32),
        np.arange(0, size + 1, _TAIL_SOURCES, dtype=np.int64),
        np.sort(random.integers(0, core, (count, _TAIL_SOURCES), dtype=np.int32)).reshape(-1),
        random.standard_normal(size, dtype=np.float32),
        np.zeros(size, dtype=np.float32),
        core,
    )


def make_data(items: int, random: np.random.Generator) -> ReleaseData:
    """Makes ratings of some users, most of them for popular items; every item has a rating."""
    each = np.arange(items, dtype=np.int32)
    users = np.concatenate([np.repeat(np.arange(_USERS, dtype=np.int32), _RATINGS), each % _USERS])
    count = len(users) - items
    rated = np.concatenate([popular(random, min(items, EASEConfig.max_items), count), each])
    keys = np.unique(users.astype(np.int64) * items + rated)
    stars = random.integers(1, 6, len(keys)).astype(np.float32)
    matrix = RatingsMatrix.of(
        (keys // items).astype(np.int32), (keys % items).astype(np.int32), stars, _USERS, items
    )
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1), dislike_limit=2.2)


def bayesian_mf(items: int, random: np.random.Generator) -> BayesianMFScorer:
    """Makes a scorer with a random posterior and a sketch of the usual size."""
    config = BayesianMFConfig(samples=_SAMPLES)
    factors = config.factors
    posterior = Posterior(
        _normal(random, items, _SAMPLES, factors),
        np.full((items, _SAMPLES), 3.5, np.float32),
        np.ones((items, _SAMPLES), np.float32),
        _normal(random, items, _SAMPLES, factors + 1),
        np.zeros((_SAMPLES, factors + 1)),
        np.tile(np.eye(factors + 1), (_SAMPLES, 1, 1)),
        np.ones(_SAMPLES),
    )
    rank = min(_SKETCH_RANK, _SAMPLES * factors)
    sketch = Sketch(_normal(random, items, rank), _normal(random, _SAMPLES * factors, rank))
    users = np.zeros((_USERS, _SAMPLES * factors + 1), np.float32)
    return BayesianMFScorer(config, posterior, users, sketch)


def index_of(vectors: Float32) -> ItemIndex:
    """Builds the index that the trainer would choose for a catalogue of this size."""
    if len(vectors) < _ANN_ITEMS:
        return ExactIndex(vectors)
    return AnnIndex.build(vectors, AnnConfig(_LISTS, _PROBES), 40 * _LISTS, 0)


def visitors(engine: Engine, seed: int) -> list[Query]:
    """Makes visitors with ratings of popular items."""
    random = np.random.default_rng(seed)
    count = engine.data.matrix.item_count
    found = []
    for _ in range(_VISITORS):
        items = np.unique(popular(random, min(count, EASEConfig.max_items), 3 * _VISITOR_RATINGS))
        items = random.permutation(items)[:_VISITOR_RATINGS].astype(np.int32)
        stars = random.integers(1, 6, len(items)).astype(np.float32)
        found.append(Query(-1, items, stars, None, new_only=True))
    return found


def popular(random: np.random.Generator, items: int, count: int) -> Int32:
    """Draws items with a probability that decreases with their index (int32, count)."""
    return (items * random.random(count) ** 3).astype(np.int32)


def _normal(random: np.random.Generator, *shape: int) -> Float32:
    values = random.standard_normal(shape, dtype=np.float32)
    values /= np.sqrt(np.float32(shape[-1]))
    return values


def main() -> None:
    """Reads the request from the first argument (JSON), and prints the results as JSON."""
    request = json.loads(sys.argv[1])
    rows, notes = measure(request["items"], request["rounds"])
    sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows], "notes": notes}) + "\n")


if __name__ == "__main__":
    main()
