"""Approximate nearest-neighbour search: a Faiss inverted file, re-ranked by exact dot products."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32, Int64
from marquee_core.errors import ArtifactError
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import best_unordered, top_indexes

ANN_FILE = "retrieval.faiss"
# The items that train the centroids are sampled with a probability proportional to this power of
# their distance from the mean. Users' best items are far from the mean, so the lists must be small
# there.
_DISTANCE_POWER = 3
# The least second moment of users' vectors in any direction, relative to the largest.
_MIN_VARIATION = 1e-6
# Faiss scans quantised vectors several times faster if their length is a multiple of this.
_LANES = 8


@dataclass(frozen=True)
class AnnConfig:
    """Parameters of an inverted file, which stores each item in the list of its nearest centroid.

    Attributes:
        lists: Number of lists.
        probes: Number of lists that a search scans.
        expansion: A search finds this many times the requested number of items with vectors
            quantised to 8 bits, and re-ranks them by exact dot products.
        dense_share: If a smaller share of the items than this is eligible, all eligible items are
            ranked exactly, because the scanned lists would contain too few of them.
    """

    lists: int
    probes: int
    expansion: int = 2
    dense_share: float = 0.02


class AnnIndex:
    """An approximate index: a Faiss inverted file over item vectors."""

    def __init__(self, index: Any, items: Float32, config: AnnConfig) -> None:
        """Takes a Faiss index and its item vectors.

        Args:
            index: The inverted file, or an `IndexPreTransform` that transforms user vectors for it.
            items: The item vectors (float32, items × d).
            config: Parameters of the inverted file.
        """
        import faiss

        self._saved = index
        self._items = items
        self.config = config
        self._lists, self._transform = index, None
        if isinstance(index, faiss.IndexPreTransform):
            self._lists = faiss.downcast_index(index.index)
            matrix = faiss.downcast_VectorTransform(index.chain.at(0))
            rows = faiss.vector_to_array(matrix.A).reshape(matrix.d_out, matrix.d_in)
            self._transform = np.ascontiguousarray(rows.T)

    @classmethod
    def build(
        cls,
        items: Float32,
        config: AnnConfig,
        training_items: int,
        seed: int,
        users: Float32 | None = None,
    ) -> Self:
        """Builds an index.

        With typical users, the vectors are transformed so that the distance of two items is the
        root mean square of the difference of their products with the users. Otherwise, components
        that vary much between items but little between users would determine the lists.

        Args:
            items: The item vectors (float32, items × d).
            config: Parameters of the inverted file.
            training_items: Number of items that the centroids are trained on.
            seed: Seed for the sampling of these items and for the clustering.
            users: Vectors of typical users (float32, n × d); None for no transformation.

        Raises:
            ImportError: Faiss is not installed.
        """
        import faiss

        width = _padded_width(items.shape[1])
        transforms = None if users is None else _transforms(users)
        vectors = _padded(items if transforms is None else items @ transforms[0], width)
        centroids = faiss.IndexFlat(width, faiss.METRIC_L2)
        index = faiss.IndexIVFScalarQuantizer(
            centroids,
            width,
            config.lists,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        # By default Faiss normalises centroids for inner products, which ignores vector lengths.
        index.cp.spherical = False
        index.cp.seed = seed
        index.train(vectors[_training_sample(vectors, training_items, seed)])
        index.add(vectors)
        # Items are assigned to lists by distance, but queries select lists by inner product.
        centroids.metric_type = faiss.METRIC_INNER_PRODUCT
        if transforms is None:
            return cls(index, items, config)
        matrix = faiss.LinearTransform(items.shape[1], width, False)
        faiss.copy_array_to_vector(_padded(transforms[1], width).T.ravel(), matrix.A)
        matrix.is_trained = True
        return cls(faiss.IndexPreTransform(matrix, index), items, config)

    def with_probes(self, probes: int) -> AnnIndex:
        """Returns the same index with a different number of lists to scan."""
        config = AnnConfig(**{**asdict(self.config), "probes": probes})
        return AnnIndex(self._saved, self._items, config)

    def search(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Found]:
        """Implements `ItemIndex.search` approximately: it may miss some of the best items."""
        wanted = count * self.config.expansion
        items = self._few(wanted, eligible)
        if items is not None:
            return [self._rank(vector, items, count) for vector in vectors]
        found = self._scan(vectors, wanted, eligible)
        return [
            self._rank(vector, np.sort(near), count)
            for vector, near in zip(vectors, found, strict=True)
        ]

    def candidates(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Int32]:
        """Implements `ItemIndex.candidates` with the quantised vectors, without exact products."""
        items = self._few(count * self.config.expansion, eligible)
        if items is None:
            return self._scan(vectors, count, eligible)
        if len(items) <= count:
            return [items] * len(vectors)
        return [self._rank(vector, items, count)[0] for vector in vectors]

    def _few(self, wanted: int, eligible: Bool | None) -> Int32 | None:
        """Returns the eligible items (int32, ascending) if they are too few to scan lists for."""
        if eligible is None:
            return None
        limit = max(wanted, self.config.dense_share * len(eligible))
        if np.count_nonzero(eligible) > limit:
            return None
        return np.flatnonzero(eligible).astype(np.int32)

    def _scan(self, vectors: Float32, wanted: int, eligible: Bool | None) -> list[Int32]:
        """Finds each user's best eligible items with quantised vectors (int32, without order)."""
        import faiss

        # Faiss selects many items by a heap, which takes several times as long as scanning the
        # lists, so all scanned items are requested, and the best of them are partitioned off.
        if self._transform is not None:
            vectors = vectors @ self._transform
        bounds, scores, found = self._lists.range_search(
            _padded(vectors, self._lists.d),
            -np.inf,
            params=faiss.SearchParametersIVF(nprobe=self.config.probes),
        )
        best = []
        for start, end in pairwise(bounds.tolist()):
            items, near = found[start:end], scores[start:end]
            if eligible is not None:
                near[~eligible[items]] = -np.inf
            best.append(items[best_unordered(near, wanted)].astype(np.int32))
        return best

    def _rank(self, vector: Float32, items: Int32, count: int) -> Found:
        """Ranks items (int32, ascending) by their exact dot products."""
        scores = self._items.take(items, axis=0) @ vector
        top = top_indexes(scores, count)
        return items[top], scores[top]

    def save(self, folder: Path) -> None:
        """Writes the index to a model's folder."""
        import faiss

        faiss.write_index(self._saved, str(folder / ANN_FILE))

    @classmethod
    def load(cls, folder: Path, items: Float32, config: AnnConfig) -> Self:
        """Memory-maps the index written by `save`.

        Args:
            folder: The model's folder.
            items: The item vectors (float32, items × d).
            config: Parameters of the inverted file.

        Raises:
            ArtifactError: Faiss is not installed, the file is missing or damaged, or it belongs
                to other items or parameters.
        """
        try:
            import faiss
        except ImportError as error:
            raise ArtifactError(
                "this release needs Faiss for retrieval: pip install 'marquee-recommender[ann]'"
            ) from error
        try:
            index = faiss.read_index(str(folder / ANN_FILE), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise ArtifactError(f"{ANN_FILE}: {error}") from error
        # Releases of older versions have vectors that are neither transformed nor padded.
        widths = items.shape[1], _padded_width(items.shape[1])
        if index.ntotal != len(items) or index.d not in widths:
            raise ArtifactError(
                f"{ANN_FILE}: the index has {index.ntotal} × {index.d} values, not "
                f"{items.shape[0]} × {items.shape[1]} as the item vectors have"
            )
        lists = index
        if isinstance(index, faiss.IndexPreTransform):
            _check_transform(index, items.shape[1])
            lists = faiss.downcast_index(index.index)
        if not isinstance(lists, faiss.IndexIVF) or lists.nlist != config.lists:
            raise ArtifactError(
                f"{ANN_FILE}: the index must be an inverted file of {config.lists} lists"
            )
        # Starting threads that prefetch lists takes much longer than a search.
        faiss.downcast_InvertedLists(lists.invlists).prefetch_nthread = 0
        return cls(index, items, config)


def _check_transform(index: Any, width: int) -> None:
    """Checks the transformation of user vectors.

    Raises:
        ArtifactError: It is not a single finite matrix for vectors of this width.
    """
    import faiss

    matrix = faiss.downcast_VectorTransform(index.chain.at(0)) if index.chain.size() == 1 else None
    if (
        not isinstance(matrix, faiss.LinearTransform)
        or matrix.have_bias
        or (matrix.d_in, matrix.d_out) != (width, index.index.d)
        or matrix.A.size() != matrix.d_in * matrix.d_out
        or not np.isfinite(faiss.vector_to_array(matrix.A)).all()
    ):
        raise ArtifactError(f"{ANN_FILE}: the transformation of vectors must be a finite matrix")


def _transforms(users: Float32) -> tuple[Float32, Float32]:
    """Returns the transformations of items and of users, under which their products are the same.

    They are C^½ and C^−½, where C is the mean of u uᵀ over the users u. Directions in which the
    users hardly vary are treated as if they varied a little, so that C is invertible.

    Args:
        users: Vectors of typical users (float32, n × d).
    """
    moments = users.astype(np.float64).T @ users / max(1, len(users))
    values, axes = np.linalg.eigh(moments)
    roots = np.sqrt(np.maximum(values, max(float(values[-1]), 1e-30) * _MIN_VARIATION))
    items, inverse = (axes * roots) @ axes.T, (axes / roots) @ axes.T
    return items.astype(np.float32), inverse.astype(np.float32)


def _padded_width(width: int) -> int:
    """Returns the width of vectors after padding."""
    return -(-width // _LANES) * _LANES


def _padded(vectors: Float32, width: int) -> Float32:
    """Appends zeros to vectors, which does not change their products (float32, n × width)."""
    if vectors.shape[1] == width:
        return np.ascontiguousarray(vectors)
    padded = np.zeros((len(vectors), width), dtype=np.float32)
    padded[:, : vectors.shape[1]] = vectors
    return padded


def _training_sample(items: Float32, count: int, seed: int) -> Int64:
    """Samples items without replacement, those far from the mean with a higher probability.

    This is weighted sampling with exponential keys (Efraimidis and Spirakis, 2006).

    Args:
        items: The item vectors (float32, items × d).
        count: Number of items to sample.
        seed: Seed of the sampling.

    Returns:
        Item indexes (int64, at most `count`).
    """
    distances = np.linalg.norm(items - items.mean(axis=0), axis=1).astype(np.float64)
    keys = np.random.default_rng(seed).standard_exponential(len(items))
    keys /= np.maximum(distances, np.finfo(np.float32).tiny) ** _DISTANCE_POWER
    return np.argsort(keys)[:count]
