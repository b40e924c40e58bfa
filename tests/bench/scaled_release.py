"""Makes a release with many items and users from a trained one, without training.

Each item and each user of the trained release is copied many times, with all models' parameters of
the item or user; the factors of copied items get noise. Every model of the release is thus served
from parameters that are distributed like trained ones. The items are in random order. A copied
user's ratings are spread over the copies of the rated items, most of them over the first copies, so
that popularity has a long tail.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Float32, Int32, Int64, save_array
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.contents import model_folder, open_release, save_data
from marquee_core.release.ensemble import Ensemble
from marquee_core.release.manifest import Manifest, ModelEntry, hash_folder
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.config import load_config, mark_folds_on_request
from marquee_core.scorers.ease import EASEConfig, EASEScorer
from marquee_core.scorers.item_weights import ItemWeights
from marquee_core.scorers.popularity import Recency
from marquee_core.scorers.scorer import LoadScorer, ReleaseData
from marquee_core.scorers.slit import SLITConfig, SLITScorer
from marquee_core.scorers.tail_weights import TailWeights
from marquee_core.service_names import CF, GATEWAY
from marquee_services.cf.models import CF_SCORERS
from marquee_trainer.publishing.config import RetrievalConfig
from marquee_trainer.publishing.retrieval import choose_retrieval

_RELEASE_ID = "20260101T000000Z-00000000"
# The noise of copied factors, relative to the standard deviation of each factor.
_NOISE = 0.1
_WRITTEN_WITH_OTHERS = {"neighbours.npy", "similarities.npy", "sketch_basis.npy"}
_TAIL_SOURCES = 16
# The n-th copy of an item has n^−2 times as many ratings, and a model's parameters of it differ
# n^−1/2 times as much from the mean, as those of items with fewer ratings do.
_POPULARITY_POWER, _SHRINKAGE_POWER = 2.0, 0.5
_YEARS = 1950, 2025
NARROW_YEAR = 1949
"""The year of one item in a thousand; no item is older."""
_HALF_LIFE_DAYS = 30.0
# The files with one row for each item whose values are vectors, by name.
_FACTORS = {"item_factors.npy", "factors.npy", "item_vectors.npy"}
# The shapes of a Bayesian MF's files have the number of samples in this dimension.
_SAMPLES_AXIS = {
    **dict.fromkeys(("item_factors", "item_biases", "item_noise", "links"), 1),
    **dict.fromkeys(("user_means", "user_precisions", "noise_precisions"), 0),
}


@dataclass(frozen=True)
class Scale:
    """The size of a scaled release.

    Attributes:
        items: Number of items.
        users: Number of users.
        ratings: The most ratings of a user to keep.
        samples: The posterior samples of Bayesian MF to keep, which determine its size.
        fold_on_request: Whether to leave out the data of known users that a model can compute.
    """

    items: int
    users: int
    ratings: int
    samples: int
    fold_on_request: bool = False


@dataclass(frozen=True)
class _Copies:
    """Which row is copied to which.

    Attributes:
        source: The original of each row (int32, rows).
        copy: The number of the copy that each row is, 0 for the original (int32, rows).
        target: The row of each original in each copy, -1 if there is none (int32, copies × n).
    """

    source: Int32
    copy: Int32
    target: Int32

    @property
    def count(self) -> int:
        return len(self.source)

    @classmethod
    def of(cls, originals: int, count: int, random: np.random.Generator | None) -> _Copies:
        """Copies rows until there are `count`, in random order if there is a generator.

        The originals keep their order.
        """
        rows = np.arange(count, dtype=np.int32)
        target = np.full((-(-count // originals), originals), -1, np.int32)
        order = rows if random is None else random.permutation(rows)
        order[:originals] = np.sort(order[:originals])
        target.reshape(-1)[:count] = order
        source, copy = np.empty(count, np.int32), np.empty(count, np.int32)
        source[order], copy[order] = rows % originals, rows // originals
        return cls(source, copy, target)


def scale_release(
    store: ReleaseStore, manifest: Manifest, scale: Scale, folder: Path, cache: Path
) -> tuple[ReleaseStore, Manifest]:
    """Publishes and promotes a scaled copy of a release in a store of its own.

    Args:
        store: The store of the trained release.
        manifest: Its manifest; every item must be covered by every model.
        scale: The size of the copy, at least that of the trained release.
        folder: The folder for the new store; it must not exist.
        cache: The folder for copies of release files.
    """
    files, _ = open_release(store, manifest.release_id, CF, cache)
    trained = Path(store.url) / "releases" / manifest.release_id
    random = np.random.default_rng(0)
    items = _Copies.of(manifest.data.item_count, scale.items, random)
    users = _Copies.of(manifest.data.user_count, scale.users, None)
    made = folder / "made"
    data = _data(files.data, items, users, scale.ratings, random)
    catalogue = _catalogue(items.count, manifest.data.genres, random)
    names = Vocabulary.of(f"u{n:07d}" for n in range(users.count))
    vectors = _copied(np.load(trained / "data/item_vectors.npy"), items, random)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    ensemble = Ensemble.load(trained / "ensemble.json", manifest)
    save_data(made, names, catalogue, data, vectors, ensemble)
    rankers = {name for pair in ensemble.by_backends.values() for name in pair.ranking.weights}
    models = []
    for model in manifest.models:
        if model.backend != GATEWAY:
            source, target = model_folder(trained, model.name), model_folder(made, model.name)
            target.mkdir(parents=True)
            entry = _scale_model(model, source, target, data, items, users, scale, random)
            if model.name in rankers and model.name in CF_SCORERS:
                entry = _with_index(entry, CF_SCORERS[model.name], target, data)
            models.append(entry)
        else:
            models.append(model)
    hashes = hash_folder(made)
    numbers = replace(
        manifest.data,
        user_count=users.count,
        item_count=items.count,
        rating_count=data.matrix.rating_count,
    )
    scaled = replace(
        manifest, release_id=_RELEASE_ID, data=numbers, models=tuple(models), files=hashes
    )
    new_store = ReleaseStore(str(folder / "store"))
    new_store.publish(made, scaled)
    new_store.promote(_RELEASE_ID)
    shutil.rmtree(made, ignore_errors=True)
    return new_store, scaled


def _data(
    trained: ReleaseData,
    items: _Copies,
    users: _Copies,
    limit: int,
    random: np.random.Generator,
) -> ReleaseData:
    """Copies the ratings, of users with many ratings only some, and fits the baseline."""
    old = trained.matrix
    counts = np.minimum(np.diff(old.indptr), limit)[users.source]
    rows = np.repeat(np.arange(users.count, dtype=np.int32), counts)
    starts = np.cumsum(counts) - counts
    position = np.arange(len(rows)) - np.repeat(starts, counts)
    # Every n-th rating of the original user, from a random start.
    width = np.diff(old.indptr)[users.source[rows]]
    first = random.integers(0, 1 << 30, users.count)[rows]
    picked = old.indptr[users.source[rows]] + (first + position * (width // counts[rows])) % width
    rated = old.items[picked]
    share = (1.0 + np.arange(len(items.target))) ** -_POPULARITY_POWER
    copy = random.choice(len(share), len(rows), p=share / share.sum())
    found = items.target[copy, rated]
    found = np.where(found < 0, items.target[0, rated], found)
    order = np.lexsort((found, rows))
    indptr = np.zeros(users.count + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    later = (np.repeat(counts, counts) - 1 - position).astype(np.int32)
    matrix = RatingsMatrix(
        indptr, found[order], old.ratings[picked][order], later[order], items.count
    )
    recency = Recency(_HALF_LIFE_DAYS, matrix.item_counts.astype(np.float32))
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1), recency, trained.dislike_limit)


def _catalogue(count: int, genres: Sequence[str], random: np.random.Generator) -> Catalogue:
    """Makes items with titles, years and one genre each; see `NARROW_YEAR`."""
    years = random.integers(*_YEARS, count)
    years[::1_000] = NARROW_YEAR
    chosen = random.choice(len(genres), count)
    return Catalogue.of(
        Vocabulary.of(f"i{n:07d}" for n in range(count)),
        [f"Title {n}" for n in range(count)],
        years.tolist(),
        [[genres[g]] for g in chosen.tolist()],
    )


def _scale_model(
    model: ModelEntry,
    source: Path,
    target: Path,
    data: ReleaseData,
    items: _Copies,
    users: _Copies,
    scale: Scale,
    random: np.random.Generator,
) -> ModelEntry:
    """Writes a model's scaled artifacts."""
    if model.name in ("ease", "slit"):
        return _scale_item_weights(model, source, target, data, items, random)
    leaves_out_users = scale.fold_on_request and model.name in ("bayesian_mf", "user_cf")
    for path in sorted(source.rglob("*")):
        new = target / path.relative_to(source)
        if path.name in ("config.json", "fold_in.json", "scalars.json", "neighbour_weight.json"):
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new)
        if path.suffix != ".npy" or path.name in _WRITTEN_WITH_OTHERS:
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        array = np.load(path, mmap_mode="r")
        if path.name == "neighbour_indptr.npy":
            copies = users if model.name == "user_cf" else items
            if not (leaves_out_users and copies is users):
                _scale_neighbours(path.parent, new.parent, copies)
            continue
        if path.name == "users.npy" and leaves_out_users:
            continue
        if model.name == "bayesian_mf":
            array = _with_samples(path.stem, array, scale.samples)
        if len(array) == len(users.target[0]) and path.name == "users.npy":
            array = array[users.source]
        elif len(array) == len(items.target[0]):
            array = _copied(array, items, random if path.name in _FACTORS else None)
        save_array(new, np.ascontiguousarray(array))
    if model.name == "bayesian_mf":
        config = json.loads((source / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**config, "samples": scale.samples}))
        _scale_sketch(source, target, scale.samples)
    if leaves_out_users:
        mark_folds_on_request(target)
    return replace(model, retrieval={"kind": "exact"})


def _with_samples(name: str, array: NDArray[Any], samples: int) -> NDArray[Any]:
    """Keeps the first posterior samples of an array of Bayesian MF."""
    if name in _SAMPLES_AXIS:
        return array[:, :samples] if _SAMPLES_AXIS[name] else array[:samples]
    if name == "users":
        factors = (array.shape[1] - 1) // 60
        return np.hstack([array[:, : samples * factors], array[:, -1:]])
    return array[: samples * 16] if name == "sketch_projection" else array


def _scale_sketch(source: Path, target: Path, samples: int) -> None:
    """Makes the sketch's vectors of all items from their factors.

    They are the least-squares approximation of the known users' scores.
    """
    users = _with_samples("users", np.load(source / "users.npy"), samples)[:, :-1]
    projection = np.load(target / "sketch_projection.npy")
    weighted = users.T @ (users @ projection)
    solution = np.linalg.solve((projection.T @ weighted).T, weighted.T).T.astype(np.float32)
    factors = np.load(target / "item_factors.npy", mmap_mode="r")
    basis = factors.reshape(len(factors), -1) @ solution
    save_array(target / "sketch_basis.npy", basis.astype(np.float32))


def _copied(
    array: NDArray[Any], copies: _Copies, random: np.random.Generator | None
) -> NDArray[Any]:
    """Copies rows; with a generator, rows of copied items are shrunk to the mean and get noise."""
    rows = array[copies.source]
    if random is not None:
        flat = rows.reshape(len(rows), -1)
        originals = array.reshape(len(array), -1)
        spread = (_NOISE * originals.std(axis=0)).astype(np.float32)
        mean = originals.mean(axis=0)
        shares = _shrinkage(copies.copy)[:, None]
        for first in range(0, len(rows), 10_000):
            part = slice(first, first + 10_000)
            noise = random.standard_normal(flat[part].shape, dtype=np.float32) * spread
            noise[copies.copy[part] == 0] = 0.0
            flat[part] = mean + shares[part] * (flat[part] - mean + noise)
    return rows


def _shrinkage(copy: Int32) -> Float32:
    """Returns the share of the difference from the mean that copies keep (float32, n)."""
    return ((1.0 + copy) ** -_SHRINKAGE_POWER).astype(np.float32)


def _scale_neighbours(source: Path, target: Path, copies: _Copies) -> None:
    """Copies neighbourhoods: the neighbours of a copy are the same copies of the neighbours."""
    indptr = np.load(source / "neighbour_indptr.npy")
    indices = np.load(source / "neighbours.npy")
    similarities = np.load(source / "similarities.npy")
    counts = np.diff(indptr)[copies.source]
    new = np.zeros(copies.count + 1, np.int64)
    np.cumsum(counts, out=new[1:])
    picked: Int64 = np.arange(new[-1]) + np.repeat(indptr[copies.source] - new[:-1], counts)
    found = copies.target[np.repeat(copies.copy, counts), indices[picked]]
    found = np.where(found < 0, copies.target[0, indices[picked]], found)
    save_array(target / "neighbour_indptr.npy", new)
    save_array(target / "neighbours.npy", found)
    save_array(target / "similarities.npy", similarities[picked])


def _scale_item_weights(
    model: ModelEntry,
    source: Path,
    target: Path,
    data: ReleaseData,
    items: _Copies,
    random: np.random.Generator,
) -> ModelEntry:
    """Makes weights with the original items as the core and their copies as the tail."""
    trained = np.load(source / "weights.npy")
    core = items.target[0]
    tail: Int32 = np.flatnonzero(items.copy > 0).astype(np.int32)
    # The largest weights to each original item, ascending by their source.
    sources = np.argpartition(-np.abs(trained), _TAIL_SOURCES, axis=0)[:_TAIL_SOURCES]
    sources = np.sort(sources, axis=0).T.astype(np.int32)
    strongest = np.take_along_axis(trained.T, sources, axis=1)
    chosen = items.source[tail]
    tail_sources: Int32 = sources[chosen].reshape(-1).astype(np.int32)
    noise = 1.0 + _NOISE * random.standard_normal((len(tail), _TAIL_SOURCES), dtype=np.float32)
    indptr = np.arange(0, len(tail) * _TAIL_SOURCES + 1, _TAIL_SOURCES, dtype=np.int64)
    forward: Float32 = (strongest[chosen] * noise * _shrinkage(items.copy[tail])[:, None]).reshape(
        -1
    )
    weights = ItemWeights(
        core,
        trained,
        items.count,
        TailWeights(tail, indptr, tail_sources, forward, np.zeros_like(forward), len(core)),
    )
    if model.name == "ease":
        precisions = np.load(source / "precisions.npy")
        config = load_config(source, EASEConfig)
        EASEScorer(data, config, weights, precisions, precisions[chosen]).save(target)
    else:
        SLITScorer(data, load_config(source, SLITConfig), weights).save(target)
    return replace(model, retrieval={"kind": "exact"})


def _with_index(model: ModelEntry, load: LoadScorer, folder: Path, data: ReleaseData) -> ModelEntry:
    """Builds the index that the trainer would choose for a model."""
    chosen = choose_retrieval(load(folder, data), data, RetrievalConfig(), 0)
    if chosen.index is not None:
        chosen.index.save(folder)
    return replace(model, retrieval=chosen.entry)
