"""Models score a few items for each user as they score all items, whatever serves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.ratings import Profiles, join_profiles
from marquee_core.scorers.dot_product import DotProductScorer
from marquee_core.scorers.saved_model import SavedModelScorer
from marquee_core.scorers.scorer import Scorer, score_pairs
from marquee_services.inference.models import load_scorer
from marquee_trainer.training.results import Trained

PERCEPTRONS = ("deep_mf", "residual_mf")
DOT_PRODUCTS = ("mf", "autorec", "user_autorec")


def profiles_of(trained: Trained) -> Profiles:
    """Known users, visitors with few and with many ratings, and one without ratings."""
    matrix = trained.data.matrix
    known = matrix.profiles([0, 3])
    first = matrix.profiles([1])
    few = first.items[:3], first.ratings[:3]
    none = np.empty(0, np.int32), np.empty(0, np.float32)
    return join_profiles(
        [
            known,
            matrix.profile(-1, *few),
            matrix.profile(-1, first.items, first.ratings),
            matrix.profile(-1, *none),
            matrix.profile(2, *few),
        ]
    )


@pytest.mark.parametrize("served", [False, True])
def test_pairs_have_the_scores_of_the_whole_catalogue(
    small_trained: Trained, tmp_path: Path, served: bool
) -> None:
    """For every model, as it is trained and as it is loaded from its artifacts."""
    profiles = profiles_of(small_trained)
    count = small_trained.data.matrix.item_count
    items = np.random.default_rng(0).integers(0, count, (len(profiles), 8)).astype(np.int32)
    for model in small_trained.models:
        scorer: Scorer = model.scorer
        if served:
            if model.name not in PERCEPTRONS + DOT_PRODUCTS:
                continue
            model.save(tmp_path / model.name)
            scorer = load_scorer(tmp_path / model.name, small_trained.data)
            kind = SavedModelScorer if model.name in PERCEPTRONS else DotProductScorer
            assert isinstance(scorer, kind)
        expected = np.take_along_axis(scorer.score(profiles), items, axis=1)
        found = score_pairs(scorer, profiles, items)
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=model.name)


@pytest.mark.parametrize("name", DOT_PRODUCTS)
def test_the_arrays_give_the_scores_of_the_saved_model(
    small_trained: Trained, tmp_path: Path, name: str
) -> None:
    """NumPy serves what TensorFlow trained: the two fold users in alike."""
    model = next(model for model in small_trained.models if model.name == name)
    model.save(tmp_path)
    profiles = profiles_of(small_trained)
    by_tensorflow = SavedModelScorer.load(tmp_path, small_trained.data).score(profiles)
    by_numpy = DotProductScorer.load(tmp_path, small_trained.data).score(profiles)
    np.testing.assert_allclose(by_numpy, by_tensorflow, atol=2e-4)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("fold_in.json", b"{"),
        ("fold_in.json", b'{"kind": "magic"}'),
        ("fold_in.json", b'{"kind": "ridge", "ridge": "much"}'),
        ("users.npy", b""),
    ],
)
def test_damaged_arrays_are_refused(
    small_trained: Trained, tmp_path: Path, file: str, content: bytes
) -> None:
    """A damaged file is named."""
    model = next(model for model in small_trained.models if model.name == "mf")
    model.save(tmp_path)
    (tmp_path / "dot_product" / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=file):
        DotProductScorer.load(tmp_path, small_trained.data)
