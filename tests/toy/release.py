"""A toy release: 40 users, 120 items, and models with random parameters.

Its scores are arbitrary, but they are deterministic for a seed, differ between models and users,
and depend on the ratings of visitors, so tests of the services can check them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.feedback.events import Mark
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix
from marquee_core.release.contents import model_folder, save_data
from marquee_core.release.ensemble import Blend, BlendPair, Ensemble, backend_subsets
from marquee_core.release.manifest import (
    DataEntry,
    Manifest,
    ModelEntry,
    digest_of,
    hash_folder,
    new_release_id,
)
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.ials import IALSConfig, IALSScorer
from marquee_core.scorers.popularity import popularity_scores
from marquee_core.scorers.scorer import LoadScorer, NeighbourEvidence, RatedEvidence, ReleaseData
from marquee_core.service_names import BACKENDS, CF, GATEWAY, INFERENCE
from marquee_services.gateway.releases.precomputed import PrecomputedPages

USERS, ITEMS, FACTORS = 40, 120, 4
GENRES = ("Comedy", "Drama", "War")
# The models of each backend with their outputs.
TOY_MODELS = {
    CF: {"item_cf": Output.STARS, "ease": Output.AFFINITY},
    INFERENCE: {"mf": Output.STARS},
}


class ToyScorer:
    """Scores an item by its dot product with the weighted mean of the vectors of rated items.

    The weights are the residuals of the user's ratings. A rating predictor adds the baseline.
    """

    def __init__(self, vectors: Float32, data: ReleaseData, output: Output) -> None:
        """Store the item vectors (float32, items × factors) and the release's data."""
        self._vectors = vectors
        self._data = data
        self.output = output

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Implement `Scorer.score`."""
        sums = np.zeros((len(profiles), self._vectors.shape[1]))
        residuals = self._data.baseline.residuals(profiles)
        np.add.at(sums, profiles.rows, residuals[:, None] * self._vectors[profiles.items])
        users = sums / np.maximum(profiles.counts, 1)[:, None]
        vectors = self._vectors if items is None else self._vectors[items]
        scores = users @ vectors.T
        if self.output is Output.STARS:
            scores = scores + self._data.baseline.score(profiles, items)
        return scores.astype(np.float32)

    def similarities(self, item: int) -> Float32:
        """Implement `ComparesItems.similarities` by cosine similarity."""
        lengths = np.linalg.norm(self._vectors, axis=1)
        cosines = self._vectors @ self._vectors[item] / (lengths * lengths[item])
        clipped: Float32 = np.clip(cosines, -1, 1).astype(np.float32)
        return clipped

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """Implement `ExplainsByItems.rated_evidence`."""
        residuals = self._data.baseline.residuals(profile)
        remainders = np.zeros(len(items), np.float32)
        if self.output is Output.STARS:
            remainders = self._data.baseline.score(profile, items)[0]
        evidence = []
        for item, remainder in zip(items, remainders.tolist(), strict=True):
            products = (self._vectors[profile.items] @ self._vectors[item]).astype(np.float32)
            parts = residuals * products / max(1, len(profile.items))
            evidence.append(RatedEvidence.largest(profile.items, products, parts, remainder, count))
        return evidence

    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """Implement `ExplainsByNeighbours.neighbour_evidence` with constant figures."""
        counts = np.bincount(self._data.matrix.items, minlength=ITEMS)
        return [NeighbourEvidence(int(counts[item]), 4.0, 0.25) for item in items]


def toy_loader(output: Output) -> LoadScorer:
    """Return the function that loads a toy model of this output from its folder."""

    def load(folder: Path, data: ReleaseData) -> ToyScorer:
        vectors = load_array(folder / "vectors.npy", np.float32, (ITEMS, FACTORS))
        return ToyScorer(vectors, data, output)

    return load


TOY_LOADERS = {
    backend: {name: toy_loader(output) for name, output in models.items()}
    for backend, models in TOY_MODELS.items()
}


def toy_data(
    seed: int, recorded: Mapping[tuple[str, str], float] | None = None
) -> tuple[Vocabulary, Catalogue, ReleaseData]:
    """Draw the users, the catalogue, and ratings of about a quarter of all pairs.

    Args:
        seed: Seed of the ratings.
        recorded: Further ratings by user and item, which replace the drawn ones.
    """
    recorded = recorded or {}
    random = np.random.default_rng(seed)
    names = {f"u{n}" for n in range(USERS)} | {user for user, _ in recorded}
    users = Vocabulary.of(names)
    items = Vocabulary.of(f"i{n}" for n in range(ITEMS))
    catalogue = Catalogue.of(
        items,
        [f"Film Number {n}" for n in range(ITEMS)],
        [0 if n % 10 == 0 else 1950 + n % 60 for n in range(ITEMS)],
        [[GENRES[n % 3]] + ([GENRES[(n + 1) % 3]] if n % 2 else []) for n in range(ITEMS)],
    )
    rated = np.argwhere(random.random((USERS, ITEMS)) < 0.25).astype(np.int32)
    stars = random.integers(1, 6, len(rated)).astype(np.float32)
    if recorded:
        dense = np.zeros((len(users), ITEMS), np.float32)
        places = users.indexes([f"u{n}" for n in range(USERS)])
        dense[np.sort(places)[rated[:, 0]], rated[:, 1]] = stars
        for (user, item), value in recorded.items():
            dense[users.index(user), items.index(item)] = value
        rated = np.argwhere(dense).astype(np.int32)
        stars = dense[rated[:, 0], rated[:, 1]]
    matrix = RatingsMatrix.of(rated[:, 0], rated[:, 1], stars, len(users), ITEMS)
    return users, catalogue, ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 3))


def toy_ensemble(
    backends: Sequence[str] = BACKENDS, models: Mapping[str, Mapping[str, Output]] = TOY_MODELS
) -> Ensemble:
    """Return an ensemble with a pair of blends for every subset of the backends."""
    pairs = {}
    for subset in backend_subsets(backends):
        stars = {"baseline": 1.0}
        ranking = {"baseline": 0.5, "popularity": 0.25}
        for backend in subset:
            for name, output in models[backend].items():
                ranking[name] = 1.0
                if output is Output.STARS:
                    stars[name] = 0.5
                    stars["baseline"] -= 0.5
        pairs[subset] = BlendPair(Blend(stars, 0.0), Blend(ranking, 0.125))
    return Ensemble(pairs)


def toy_pages(catalogue: Catalogue, data: ReleaseData) -> PrecomputedPages:
    """Return the first pages of all users as ranked and predicted by the gateway's own models."""
    counts = data.matrix.item_counts
    scores = 0.125 + 0.25 * popularity_scores(counts)
    pages = []
    for user in range(USERS):
        profile = data.matrix.profiles([user])
        stars = data.baseline.score(profile)[0]
        own = scores + 0.5 * stars
        own[data.matrix.seen(user)] = -np.inf
        best = np.argsort(-own, kind="stable")[:20]
        best = best[np.isfinite(own[best])]
        page = pb.RecommendResponse(
            subject_kind=types_pb2.SUBJECT_KIND_KNOWN,
            items=[
                pb.RecommendedItem(
                    item_id=catalogue.items.id(int(item)),
                    rank=rank,
                    score=float(own[item]),
                    predicted_stars=float(np.clip(stars[item], 1.0, 5.0)),
                )
                for rank, item in enumerate(best, 1)
            ],
        )
        pages.append(page.SerializeToString())
    return PrecomputedPages.of(pages)


def publish_toy(
    store: ReleaseStore,
    folder: Path,
    seed: int = 0,
    published: datetime | None = None,
    backends: Sequence[str] = BACKENDS,
    recorded: Mapping[tuple[str, str], float] | None = None,
    mark: Mark | None = None,
    precomputed: bool = False,
    servable: bool = False,
    saved_model: Path | None = None,
) -> Manifest:
    """Publish a toy release without promoting it.

    Args:
        store: The store that the release is published to.
        folder: An empty or missing folder where its files are written first.
        seed: Seed of the ratings and the parameters of the models.
        published: The time of publication; now plus `seed` seconds if None.
        backends: The backends whose models the release holds.
        recorded: Ratings from the feedback log that the release includes, by user and item.
        mark: The position in the log up to which the release includes it.
        precomputed: Whether it has precomputed first pages, for a release without backends.
        servable: Whether the CF service of `marquee serve` can load the release, whose only model
            is then iALS with random factors. Otherwise only `TOY_LOADERS` can.
        saved_model: A SavedModel that is the release's only model, which the inference service of
            `marquee serve` can load.
    """
    known = {CF: {"ials": Output.AFFINITY}} if servable else TOY_MODELS
    if saved_model is not None:
        known = {INFERENCE: {"mf": Output.STARS}}
    toy_models = {backend: known[backend] for backend in backends if backend in known}
    users, catalogue, data = toy_data(seed, recorded)
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(ITEMS, FACTORS)).astype(np.float32)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    save_data(folder, users, catalogue, data, unit, toy_ensemble(list(toy_models), known))
    for models in toy_models.values():
        for name in models:
            parameters = random.normal(size=(ITEMS, FACTORS)).astype(np.float32)
            if saved_model is not None:
                shutil.copytree(saved_model, model_folder(folder, name))
            elif servable:
                config = IALSConfig(factors=FACTORS)
                IALSScorer(data, config, parameters).save(model_folder(folder, name))
            else:
                save_array(model_folder(folder, name) / "vectors.npy", parameters)
    if precomputed:
        toy_pages(catalogue, data).save(folder)
    files = hash_folder(folder)
    now = published or datetime.now(UTC) + timedelta(seconds=seed)
    entries = [
        ModelEntry(name, backend, output, digest_of(files, f"models/{name}/")[:12], {}, {})
        for backend, models in toy_models.items()
        for name, output in models.items()
    ]
    entries += [
        ModelEntry("baseline", GATEWAY, Output.STARS, "0" * 12, {}, {"test_mse": 1.0}),
        ModelEntry("popularity", GATEWAY, Output.AFFINITY, "0" * 12, {}, {}),
    ]
    manifest = Manifest(
        release_id=new_release_id(files, now),
        published_at=now.isoformat(),
        data=DataEntry(
            f"toy(seed={seed})",
            "0" * 64,
            len(users),
            ITEMS,
            data.matrix.rating_count,
            1.0,
            5.0,
            catalogue.genres,
        ),
        models=tuple(entries),
        evaluation={"ensemble_metrics": {"test_mse": 0.9}},
        library_versions={},
        files=files,
        feedback_position=0 if mark is None else mark.position,
        feedback_mark="" if mark is None else mark.token,
    )
    store.publish(folder, manifest)
    return manifest
