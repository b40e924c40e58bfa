"""Approximate nearest neighbours: an inverted file of Faiss, re-ranked by the exact products."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32, Int64
from marquee_core.errors import ArtifactError
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import top_indexes

ANN_FILE = "retrieval.faiss"
# Items teach the centroids with a chance that goes with this power of their distance from the
# mean: the best of any user are among the far ones, and must not share few lists.
_OUTWARDS = 3


@dataclass(frozen=True)
class AnnConfig:
    """An inverted file: items in lists by their nearest centroid, of which some are looked at.

    Attributes:
        lists: How many lists.
        probes: How many lists a search looks at.
        expansion: How many times more items are found than wanted, by vectors rounded to 8 bits,
            before the exact products rank them.
        dense_share: When a smaller share of the items qualifies, those are ranked exactly: of
            few that qualify the lists looked at would hold too few.
    """

    lists: int
    probes: int
    expansion: int = 2
    dense_share: float = 0.02


class AnnIndex:
    """An inverted file over item vectors."""

    def __init__(self, index: Any, items: Float32, config: AnnConfig) -> None:
        """Takes a Faiss index and the vectors that it is of (float32, items × d)."""
        self._index = index
        self._items = items
        self.config = config

    @classmethod
    def build(cls, items: Float32, config: AnnConfig, training_items: int, seed: int) -> Self:
        """Clusters items and files them.

        Args:
            items: The item vectors (float32, items × d).
            config: The inverted file.
            training_items: How many items the centroids are learned from.
            seed: Of their choice.

        Raises:
            ImportError: Faiss is not installed.
        """
        import faiss

        width = items.shape[1]
        centroids = faiss.IndexFlat(width, faiss.METRIC_L2)
        index = faiss.IndexIVFScalarQuantizer(
            centroids,
            width,
            config.lists,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        # Faiss would take centroids for directions, which lose how far out items are.
        index.cp.spherical = False
        index.cp.seed = seed
        index.train(items[_teachers(items, training_items, seed)])
        index.add(np.ascontiguousarray(items))
        # Items are filed by distance; users look where the product is high.
        centroids.metric_type = faiss.METRIC_INNER_PRODUCT
        return cls(index, items, config)

    def with_probes(self, probes: int) -> AnnIndex:
        """The same index, looking at so many lists."""
        config = AnnConfig(**{**asdict(self.config), "probes": probes})
        return AnnIndex(self._index, self._items, config)

    def search(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Found]:
        """As `ItemIndex.search`; approximate."""
        import faiss

        allowed = None
        if eligible is not None:
            few = np.flatnonzero(eligible).astype(np.int32)
            wanted = max(count * self.config.expansion, self.config.dense_share * len(eligible))
            if len(few) <= wanted:
                return [self._ranked(vector, few, count) for vector in vectors]
            allowed = faiss.IDSelectorBitmap(np.packbits(eligible, bitorder="little"))
        parameters = faiss.SearchParametersIVF(nprobe=self.config.probes, sel=allowed)
        _, found = self._index.search(
            vectors, min(count * self.config.expansion, len(self._items)), params=parameters
        )
        return [
            self._ranked(vector, np.sort(places[places >= 0]).astype(np.int32), count)
            for vector, places in zip(vectors, found, strict=True)
        ]

    def _ranked(self, vector: Float32, items: Int32, count: int) -> Found:
        """The best of given items (int32, ascending), by the exact product."""
        scores = self._items[items] @ vector
        top = top_indexes(scores, count)
        return items[top], scores[top]

    def save(self, folder: Path) -> None:
        """Writes the index into a model's folder."""
        import faiss

        faiss.write_index(self._index, str(folder / ANN_FILE))

    @classmethod
    def load(cls, folder: Path, items: Float32, config: AnnConfig) -> Self:
        """Reads what `save` wrote; the file is mapped into memory.

        Raises:
            ArtifactError: Faiss is not installed, or the file is not an index of these items.
        """
        try:
            import faiss
        except ImportError as error:
            raise ArtifactError(
                "the release retrieves by Faiss: install marquee[ann] to serve it"
            ) from error
        try:
            index = faiss.read_index(str(folder / ANN_FILE), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise ArtifactError(f"{ANN_FILE}: {error}") from error
        if (index.ntotal, index.d) != items.shape:
            raise ArtifactError(f"{ANN_FILE} is of {index.ntotal} × {index.d}, not {items.shape}")
        if not isinstance(index, faiss.IndexIVF) or index.nlist != config.lists:
            raise ArtifactError(f"{ANN_FILE} is no inverted file of {config.lists} lists")
        # Threads that read ahead take many times longer to start than a search takes.
        faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
        return cls(index, items, config)


def _teachers(items: Float32, count: int, seed: int) -> Int64:
    """Random items, far ones more likely, without repetition (Efraimidis and Spirakis, 2006)."""
    distances = np.linalg.norm(items - items.mean(axis=0), axis=1).astype(np.float64)
    waits = np.random.default_rng(seed).standard_exponential(len(items))
    waits /= np.maximum(distances, np.finfo(np.float32).tiny) ** _OUTWARDS
    return np.argsort(waits)[:count]
