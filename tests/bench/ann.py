"""Measures approximate retrieval in a subprocess: the code of the services, without RPC.

Prints its results as one line of JSON. `bench.sections.core` runs it with a single thread.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.kernels import interleaved
from bench.report import Row, Target
from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix
from marquee_core.retrieval import ann
from marquee_core.retrieval.ann import ANN_FILE, AnnConfig, AnnIndex
from marquee_core.retrieval.exact import ExactIndex, ItemIndex
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.publishing import retrieval as trainer
from marquee_trainer.publishing.config import RetrievalConfig
from marquee_trainer.publishing.retrieval import RECALL_DEPTH, choose_retrieval

_FACTORS = 64
# Measured on MF trained on MovieLens 100K: the standard deviation of the k-th factor is about
# k^-0.3, and item biases vary 1.6 times as much as the dot products of the other factors.
_DECAY, _BIAS_SPREAD = 0.3, 1.6
_USERS = 256
_QUERIES = 128
_SEED = 0
_RECALL, _SPEED = Target(">=", 0.95), Target(">=", 10.0)


def synthetic_factors(items: int) -> tuple[Float32, Float32]:
    """Draws item and user vectors that are distributed like trained ones.

    The last factor holds the item biases. Unlike trained vectors, these have no clusters or
    outliers, which would make retrieval easier.

    Args:
        items: Number of items.

    Returns:
        The item vectors and the user vectors (float32, items × factors and users × factors).
    """
    random = np.random.default_rng(_SEED)
    scale = np.arange(1, _FACTORS, dtype=np.float32) ** -_DECAY
    both = random.standard_normal((items + _USERS, _FACTORS), dtype=np.float32)
    both[:, :-1] *= scale
    both[:items, -1] *= _BIAS_SPREAD * np.sqrt(np.sum(scale**4))
    both[items:, -1] = 1.0
    return both[:items], both[items:]


class FactorScorer:
    """Scores items by the dot products of given vectors."""

    output = Output.STARS

    def __init__(self, items: Float32, users: Float32) -> None:
        """Takes the item vectors and the user vectors (float32, rows × factors)."""
        self._items = items
        self._users = users

    def item_products(self) -> Float32 | None:
        """Implements `ScoresByProduct.item_products`."""
        return self._items

    def user_products(self, profiles: Profiles) -> Float32:
        """Implements `ScoresByProduct.user_products`."""
        return self._users[profiles.user_index]

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Implements `Scorer.score`."""
        chosen = self._items if items is None else self._items[items]
        scores: Float32 = self.user_products(profiles) @ chosen.T
        return scores


def index_folder(cache: Path, items: int) -> Path:
    """Returns the folder of a cached index, named after the code that builds the index."""
    sources = [__file__, ann.__file__, trainer.__file__]
    digest = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources))
    return cache / f"ann-{items}-{digest.hexdigest()[:16]}"


def index_of(items: Float32, users: Float32, folder: Path) -> tuple[AnnIndex, float]:
    """Builds the index that the trainer would publish, or loads it from the cache.

    Args:
        items: The item vectors.
        users: The user vectors.
        folder: Folder of the cached index.

    Returns:
        The index, and its recall@100 as measured by the trainer.
    """
    notes = folder / "ann.json"
    if notes.exists():
        entry = json.loads(notes.read_text())
        config = AnnConfig(**entry["parameters"])
        return AnnIndex.load(folder, items, config), entry["recall_at_100"]
    diagonal = np.arange(_USERS, dtype=np.int32)
    stars = np.full(_USERS, 4.0, np.float32)
    matrix = RatingsMatrix.of(diagonal, diagonal, stars, _USERS, len(items))
    data = ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1))
    chosen = choose_retrieval(FactorScorer(items, users), data, RetrievalConfig("ann"), _SEED)
    assert chosen.index is not None
    folder.mkdir(parents=True, exist_ok=True)
    chosen.index.save(folder)
    notes.write_text(json.dumps(chosen.entry))
    return AnnIndex.load(folder, items, chosen.index.config), chosen.entry["recall_at_100"]


def measure(count: int, rounds: int, cache: Path) -> tuple[list[Row], list[str]]:
    """Measures the recall of approximate retrieval, and its throughput against exact retrieval.

    Args:
        count: Number of items.
        rounds: Rounds of each comparison, of which the median is reported.
        cache: Folder for the index.

    Returns:
        The rows of the table and its notes.
    """
    items, users = synthetic_factors(count)
    folder = index_folder(cache, count)
    index, recall = index_of(items, users, folder)
    exact = ExactIndex(items)

    def search(searched: ItemIndex, queries: int, batch: int) -> None:
        for start in range(0, queries, batch):
            searched.search(users[start : start + batch], RECALL_DEPTH, None)

    rows = [Row(f"recall@{RECALL_DEPTH} of {count:,} items", recall, "", target=_RECALL)]
    # Exact retrieval is slow, so it gets fewer queries.
    for batch, exact_queries in ((1, 8), (32, 64)):
        approximate_s, exact_s = interleaved(
            [
                partial(search, index, _QUERIES, batch),
                partial(search, exact, exact_queries, batch),
            ],
            rounds,
        )
        ours, theirs = _QUERIES / approximate_s, exact_queries / exact_s
        name = f"throughput of {count:,} items, batch of {batch}"
        rows.append(Row(name, ours, "users/s", theirs, ours / theirs, _SPEED))
    size = (folder / ANN_FILE).stat().st_size / 1e6
    note = (
        f"reference: exact retrieval. The index searches {index.config.probes} of its "
        f"{index.config.lists} lists and takes {size:.0f} MB. The vectors have no clusters and are "
        f"distributed like those of MF on MovieLens 100K: the standard deviation of the k-th "
        f"factor is k^-{_DECAY}, and that of the item biases {_BIAS_SPREAD} times that of the dot "
        f"products"
    )
    return rows, [note]


def main() -> None:
    """Reads the request from the first argument (JSON), and prints the results as JSON."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    rows, notes = measure(request["items"], request["rounds"], Path(request["cache"]))
    sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows], "notes": notes}) + "\n")


if __name__ == "__main__":
    main()
