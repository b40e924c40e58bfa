"""Scoring a few items for each user equals scoring all items, for every model and server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.ratings import Profiles, join_profiles
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.dot_product import DotProductScorer
from marquee_core.scorers.saved_model import SavedModelScorer
from marquee_core.scorers.scorer import ReleaseData, Scorer, score_pairs
from marquee_services.cf.models import CF_SCORERS
from marquee_services.inference.models import INFERENCE_SCORERS, load_scorer
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.model import Training
from marquee_trainer.models.neural import perceptron_module
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel
from marquee_trainer.models.registry import MODELS
from marquee_trainer.training.config import BaselineConfig
from marquee_trainer.training.preparation import release_data

LOADERS = {**CF_SCORERS, **INFERENCE_SCORERS}
DOT_PRODUCTS = ("mf", "autorec", "user_autorec")
PERCEPTRONS = "deep_mf", "residual_mf", "residual_mf without table"
# The tolerance covers float32 sums in another order.
TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def data(small_dataset: RatingsDataset) -> ReleaseData:
    """The ratings of the sample and their baseline."""
    return release_data(small_dataset, small_dataset.file_order, BaselineConfig(), 30.0)


@pytest.fixture(scope="module")
def folders(data: ReleaseData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifacts of all models and of some variants, fitted with few iterations."""
    folder = tmp_path_factory.mktemp("models")
    saved = {}

    def save(name: str, model: Any) -> None:
        model.fit(Training(data, seed=0))
        model.save(folder / name)
        saved[name] = folder / name

    for make in MODELS:
        model: Any = make()
        if isinstance(model, TensorFlowModel):
            model = model.with_epochs(1)
        if isinstance(model, BayesianMF):
            model = BayesianMF(BayesianMFConfig(factors=4, burn_in=0, sweeps=6, samples=6))
        save(model.name, model)
    with pytest.MonkeyPatch.context() as patch:
        # As for a release whose table of known users would be too large.
        patch.setattr(perceptron_module, "_TABLE_CELLS", 0)
        residual: Any = next(make() for make in MODELS if make.name == "residual_mf")
        save("residual_mf without table", residual.with_epochs(1))
    return saved


@pytest.fixture(scope="module")
def profiles(data: ReleaseData) -> Profiles:
    """Known users, visitors with few and with many ratings, and one without ratings."""
    matrix = data.matrix
    first = matrix.profiles([1])
    few = first.items[:3], first.ratings[:3]
    none = np.empty(0, np.int32), np.empty(0, np.float32)
    return join_profiles(
        [
            matrix.profiles([0, 3]),
            matrix.profile(-1, *few),
            matrix.profile(-1, first.items, first.ratings),
            matrix.profile(-1, *none),
            matrix.profile(2, *few),
        ]
    )


def loaded(folders: dict[str, Path], name: str, data: ReleaseData) -> Scorer:
    """Return the scorer of a model as loaded by a service."""
    return LOADERS[name.split()[0]](folders[name], data)


def test_pairs_have_the_scores_of_the_whole_catalogue(
    folders: dict[str, Path], data: ReleaseData, profiles: Profiles
) -> None:
    """This holds for every model of the registry, as loaded by a service."""
    random = np.random.default_rng(0)
    shape = len(profiles), 8
    items = random.integers(0, data.matrix.item_count, shape).astype(np.int32)
    for name in folders:
        scorer = loaded(folders, name, data)
        expected = np.take_along_axis(scorer.score(profiles), items, axis=1)
        found = score_pairs(scorer, profiles, items)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, err_msg=name)
        some = scorer.score(profiles, items[0])
        np.testing.assert_allclose(found[0], some[0], atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", [*DOT_PRODUCTS, *PERCEPTRONS])
def test_arrays_have_the_scores_of_the_saved_model(
    folders: dict[str, Path], data: ReleaseData, profiles: Profiles, name: str
) -> None:
    """NumPy serves what TensorFlow trained, and both fold users in the same way."""
    by_numpy = load_scorer(folders[name], data)
    assert not isinstance(by_numpy, SavedModelScorer)
    by_tensorflow = SavedModelScorer.load(folders[name], data)
    np.testing.assert_allclose(
        by_numpy.score(profiles), by_tensorflow.score(profiles), atol=TOLERANCE
    )
    if not isinstance(by_numpy, DotProductScorer):
        return
    rated = profiles.take(np.flatnonzero(profiles.counts > 0))
    products = by_numpy.item_products()
    assert products is not None
    np.testing.assert_allclose(
        by_numpy.user_products(rated) @ products.T, by_numpy.score(rated), atol=TOLERANCE
    )


@pytest.mark.parametrize(
    ("model", "file", "content"),
    [
        ("mf", "dot_product/fold_in.json", b"{"),
        ("mf", "dot_product/fold_in.json", b'{"kind": "magic"}'),
        ("mf", "dot_product/fold_in.json", b'{"kind": "ridge", "ridge": "much"}'),
        ("mf", "dot_product/users.npy", b""),
        ("residual_mf", "perceptron/scalars.json", b"{}"),
        ("residual_mf", "perceptron/item_part.npy", b""),
        ("residual_mf", "perceptron/neighbour_weight.json", b"[]"),
        ("residual_mf", "perceptron/neighbours.npy", b""),
    ],
)
def test_damaged_arrays_are_refused(
    folders: dict[str, Path], data: ReleaseData, model: str, file: str, content: bytes
) -> None:
    """The error names the file."""
    damaged = folders[model] / file
    before = damaged.read_bytes()
    damaged.write_bytes(content)
    try:
        with pytest.raises(ArtifactError, match=damaged.name):
            load_scorer(folders[model], data)
    finally:
        damaged.write_bytes(before)
