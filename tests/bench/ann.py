"""Measures approximate retrieval, in the process that runs it: the code that serves, without RPC.

Prints one line of JSON. Run by `bench.sections.retrieval`, which sees to one thread.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.core import interleaved
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
from marquee_trainer.publishing.retrieval import RECALL_DEPTH, RetrievalConfig, choose_retrieval

_DIMENSIONS = 64
# Of MF as it is trained on MovieLens 100K: k-th deviations of the factors fall by k^-0.3, and the
# offsets of items vary 1.6 times as much as the products do.
_DECAY, _OFFSETS = 0.3, 1.6
_USERS = 256
_SEED = 0
_RECALL, _SPEED = Target(">=", 0.95), Target(">=", 10.0)


def trained_factors(items: int) -> tuple[Float32, Float32]:
    """Vectors of items and users as training leaves them, the items' offsets last.

    There are no clusters, and no item is further out than chance has it: both would make
    retrieval easier.
    """
    random = np.random.default_rng(_SEED)
    scale = np.arange(1, _DIMENSIONS, dtype=np.float32) ** -_DECAY
    both = random.standard_normal((items + _USERS, _DIMENSIONS), dtype=np.float32)
    both[:, :-1] *= scale
    offsets = _OFFSETS * np.sqrt(np.sum(scale**4))
    both[:items, -1] *= offsets
    both[items:, -1] = 1.0
    return both[:items], both[items:]


class FactorScorer:
    """A scorer by given factors."""

    output = Output.STARS

    def __init__(self, items: Float32, users: Float32) -> None:
        """Takes the factors."""
        self._items = items
        self._users = users

    def item_products(self) -> Float32 | None:
        """As `ScoresByProduct.item_products`."""
        return self._items

    def user_products(self, profiles: Profiles) -> Float32:
        """As `ScoresByProduct.user_products`."""
        return self._users[profiles.user_index]

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        chosen = self._items if items is None else self._items[items]
        scores: Float32 = self.user_products(profiles) @ chosen.T
        return scores

    def similarities(self, item: int) -> Float32 | None:
        """As `Scorer.similarities`."""
        return None


def index_folder(cache: Path, items: int) -> Path:
    """Where an index is kept for as long as the code is the same that makes it."""
    sources = [__file__, ann.__file__, trainer.__file__]
    digest = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources))
    return cache / f"ann-{items}-{digest.hexdigest()[:16]}"


def index_of(items: Float32, users: Float32, folder: Path) -> tuple[AnnIndex, float]:
    """The index that the trainer would publish, and its recall@100; kept in a folder."""
    notes = folder / "ann.json"
    if notes.exists():
        kept = json.loads(notes.read_text())
        return AnnIndex.load(folder, items, AnnConfig(**kept["parameters"])), kept["recall_at_100"]
    everybody = np.arange(_USERS, dtype=np.int32)
    stars = np.full(_USERS, 4.0, np.float32)
    matrix = RatingsMatrix.of(everybody, everybody, stars, _USERS, len(items))
    data = ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1))
    chosen = choose_retrieval(FactorScorer(items, users), data, RetrievalConfig("ann"), _SEED)
    assert chosen.index is not None
    folder.mkdir(parents=True, exist_ok=True)
    chosen.index.save(folder)
    notes.write_text(json.dumps(chosen.entry))
    return AnnIndex.load(folder, items, chosen.index.config), chosen.entry["recall_at_100"]


def measure(count: int, rounds: int, cache: Path) -> tuple[list[Row], list[str]]:
    """Recall, and throughput against exact retrieval, a user at a time as servers are asked."""
    items, users = trained_factors(count)
    folder = index_folder(cache, count)
    index, recall = index_of(items, users, folder)
    exact = ExactIndex(items)

    def search(what: ItemIndex, some: int, batch: int) -> None:
        for start in range(0, some, batch):
            what.search(users[start : start + batch], RECALL_DEPTH, None)

    rows = [Row(f"recall@{RECALL_DEPTH} of {count:,} items", recall, "", target=_RECALL)]
    for batch, few in ((1, 8), (32, 64)):
        near, all_items = interleaved(
            [lambda b=batch: search(index, 128, b), lambda b=batch, f=few: search(exact, f, b)],  # type: ignore[misc]
            rounds,
        )
        ours, theirs = 128 / near, few / all_items
        name = f"throughput of {count:,} items, batch of {batch}"
        rows.append(Row(name, ours, "users/s", theirs, ours / theirs, _SPEED))
    size = (folder / ANN_FILE).stat().st_size / 1e6
    note = (
        f"reference: exact retrieval; {index.config.probes} of {index.config.lists} lists are "
        f"looked at; index of {size:.0f} MB; factors with deviation k^-{_DECAY} and offsets "
        f"{_OFFSETS} times as wide as their products, as MF has on MovieLens 100K; no clusters"
    )
    return rows, [note]


def main() -> None:
    """Measures what the argument says, and prints the rows."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    rows, notes = measure(asked["items"], asked["rounds"], Path(asked["cache"]))
    sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows], "notes": notes}) + "\n")


if __name__ == "__main__":
    main()
