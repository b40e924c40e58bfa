"""EASE: its weights, compared with solutions by hand and by direct regression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marquee_core.arrays import save_array
from marquee_core.errors import ArtifactError
from marquee_core.scorers.ease import EASEConfig, EASEScorer
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.linear import ease
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Training
from toy.ratings import release_data


def data_of(stars: np.ndarray) -> ReleaseData:
    """Return the data of a dense matrix of stars, 0 without a rating; no rating is a dislike."""
    return replace(release_data(stars, sweeps=1), dislike_limit=-np.inf)


def random_stars(users: int = 80, items: int = 30) -> np.ndarray:
    """Draw stars for about a third of the cells, and 0 for the others."""
    rng = np.random.default_rng(0)
    stars = rng.integers(1, 6, (users, items))
    return np.where(rng.random((users, items)) < 0.3, stars, 0)


def fitted(data: ReleaseData, config: EASEConfig | None = None) -> EASE:
    """Return a fitted model."""
    model = EASE(config)
    model.fit(Training(data))
    return model


def test_toy_weights_by_hand() -> None:
    """The scores equal those computed by hand.

    Three users like item 0, two of them also item 1, and none item 2, so n̄ = 5/3, and with
    c = √0.6 λ = 1. XᵀX + I = [[4, 2, 0], [2, 3, 0], [0, 0, 1]], whose inverse has P_00 = 3/8,
    P_01 = −2/8 and P_11 = 4/8: B_01 = (2/8) / (4/8) = 1/2 and B_10 = (2/8) / (3/8) = 2/3.
    """
    data = data_of(np.array([[5, 4, 1], [4, 5, 0], [5, 2, 0]]))
    model = fitted(data, EASEConfig(minimum_stars=3.0, regularisation=np.sqrt(0.6)))
    scores = model.scorer.score(data.matrix.profiles([0, 2]))
    assert scores[0].tolist() == pytest.approx([2 / 3, 1 / 2, 0.0])
    assert scores[1].tolist() == pytest.approx([0.0, 1 / 2, 0.0])
    # The partial correlation is −P_01 / √(P_00 P_11).
    row = model.scorer.similarities(0)
    assert row.tolist() == pytest.approx([1.0, (2 / 8) / np.sqrt(12 / 64), 0.0])


def test_weights_minimise_the_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each column of B equals a direct ridge regression of the item on all others.

    The Gram matrix is computed in several blocks, so the test also covers block boundaries.
    """
    monkeypatch.setattr(ease, "_GRAM_BLOCK", 7)
    stars = random_stars()
    data = data_of(stars)
    config = EASEConfig(minimum_stars=3.0, regularisation=2.0)
    liked = (stars >= 3).astype(np.float64)
    penalty = 2.0 * np.sqrt(liked.sum() / liked.shape[1])
    scores = fitted(data, config).scorer.score(data.matrix.profiles(range(len(stars))))
    for item in range(liked.shape[1]):
        others = np.delete(liked, item, axis=1)
        weights = np.linalg.solve(
            others.T @ others + penalty * np.eye(others.shape[1]), others.T @ liked[:, item]
        )
        np.testing.assert_allclose(scores[:, item], others @ weights, atol=1e-5)


def test_weights_minimise_the_weighted_regression_with_dropout() -> None:
    """B equals a direct regression with graded ratings, weighted users and dropout.

    Dropping each input with probability p and scaling the rest by 1 / (1 − p) adds p / (1 − p)
    times the square of each input to the squared error.
    """
    stars = random_stars()
    data = data_of(stars)
    config = EASEConfig(
        minimum_stars=4.0, indifference=0.4, regularisation=2.0, dropout=0.3, activity_damping=0.5
    )
    values = np.where(stars >= 4, 1.0, np.where(stars > 0, 0.4, 0.0))
    penalty = 2.0 * np.sqrt((stars >= 4).sum() / stars.shape[1])
    counts = (stars > 0).sum(axis=1)
    users = (1.0 + counts) ** -0.5
    users *= counts.sum() / (users @ counts)
    scores = fitted(data, config).scorer.score(data.matrix.profiles(range(len(stars))))
    for item in range(stars.shape[1]):
        others = np.delete(values, item, axis=1)
        gram = others.T @ (users[:, None] * others)
        dropped = np.diag(gram.diagonal() * 0.3 / 0.7)
        weights = np.linalg.solve(
            gram + dropped + penalty * np.eye(others.shape[1]),
            others.T @ (users * values[:, item]),
        )
        np.testing.assert_allclose(scores[:, item], others @ weights, atol=1e-5)


def test_the_history_of_a_user_is_weighted_by_recency() -> None:
    """The latest rating has weight 1, and one with n later ratings has (1 + n / 2)^−power."""
    data = data_of(random_stars())
    scorer = fitted(data, EASEConfig(history_decay=2.0)).scorer
    one = np.array([5], np.float32)
    separate = [
        scorer.score(data.matrix.profile(-1, np.array([item], np.int32), one))[0] for item in (3, 9)
    ]
    both = data.matrix.profile(-1, np.array([9, 3], np.int32), np.full(2, 5, np.float32))
    np.testing.assert_allclose(
        scorer.score(both)[0], separate[0] + separate[1] * (1 + 1 / 2) ** -2.0, atol=1e-6
    )


def test_similarities_are_symmetric_and_bounded() -> None:
    """Partial correlations are symmetric, and none exceeds that of an item with itself."""
    data = data_of(random_stars())
    scorer = fitted(data, EASEConfig(regularisation=1.0)).scorer
    rows = [scorer.similarities(item) for item in range(data.matrix.item_count)]
    square = np.stack(rows)
    np.testing.assert_allclose(square, square.T, atol=1e-6)
    assert np.abs(square).max() == 1.0
    assert (square.diagonal() == 1.0).all()


@pytest.mark.parametrize("tail_sources", [0, 4])
def test_scoring_a_few_items_equals_scoring_all(tail_sources: int) -> None:
    """Items may be in the core, the tail or neither, in any order."""
    data = data_of(random_stars())
    half = data.matrix.item_count // 2
    scorer = fitted(data, EASEConfig(max_items=half, tail_sources=tail_sources)).scorer
    profiles = data.matrix.profiles([0, 1, 2])
    whole = scorer.score(profiles)
    items = np.array([4, 0, 4, 9, 29, 17], dtype=np.int32)
    np.testing.assert_allclose(scorer.score(profiles, items), whole[:, items], atol=1e-6)
    core, scores = scorer.score_core(profiles)
    assert len(core) == half
    np.testing.assert_allclose(scores, whole[:, core], atol=1e-6)


def test_a_large_catalogue_is_covered_by_its_most_liked_items() -> None:
    """Without a tail, items beyond `max_items` score 0, and the others as in a separate model."""
    stars = random_stars()
    stars[:, [2, 17]] = 0
    stars[0, [2, 17]] = 5
    kept = np.delete(np.arange(stars.shape[1]), [2, 17])
    whole = data_of(stars)
    head = data_of(stars[:, kept])
    cut = fitted(whole, EASEConfig(max_items=len(kept), tail_sources=0)).scorer
    users = range(len(stars))
    scores = cut.score(whole.matrix.profiles(users))
    np.testing.assert_allclose(
        scores[:, kept], fitted(head).scorer.score(head.matrix.profiles(users)), atol=1e-6
    )
    assert not scores[:, [2, 17]].any()
    row = cut.similarities(17)
    assert np.flatnonzero(row).tolist() == [17]


def test_the_tail_is_a_regression_on_the_core(tmp_path: Path) -> None:
    """If all core items are sources, a further item has the weights of a complete EASE.

    The weights to it are those of its regression on the others, which do not change if the others
    are fitted without it. Those from it follow from the symmetric partial correlation.
    """
    stars = random_stars()
    stars[stars[:, 8] >= 3, 8] = 0
    stars[:4, 8] = 5  # the least liked item
    data, config = data_of(stars), EASEConfig(regularisation=2.0)
    likes = (stars >= 3).sum(axis=0)
    core = np.delete(likes, 8)
    # This makes λ = c √n̄ equal for both.
    other = replace(config, regularisation=2.0 * float(np.sqrt(likes.mean() / core.mean())))
    whole = fitted(data, config).scorer
    cut = fitted(data, replace(other, max_items=len(core), tail_sources=len(core))).scorer
    assert cut.weights.coverage == (len(core), 1)
    rated = np.arange(30, dtype=np.int32)
    np.testing.assert_allclose(
        cut.weights.from_items(rated, 8), whole.weights.from_items(rated, 8), atol=1e-5
    )
    own, expected = cut.similarities(8), whole.similarities(8)
    np.testing.assert_allclose(own, expected, atol=0.02)
    for item in (3, 8):
        row = cut.similarities(item)
        assert row[8] == pytest.approx(own[item])
    # The weights from the item follow from the same correlation.
    scales = np.sqrt(np.append(cut._precisions, cut._tail_precisions))
    back = cut.weights.from_items(np.array([8], np.int32), 3)[0]
    assert back * scales[3] / scales[-1] == pytest.approx(float(own[3]), abs=1e-5)
    profiles = data.matrix.profiles(range(len(stars)))
    cut.save(tmp_path)
    again = EASEScorer.load(tmp_path, data)
    np.testing.assert_array_equal(again.score(profiles), cut.score(profiles))


def test_scores_with_a_tail_sum_their_evidence() -> None:
    """Each further item has a few sources, and contributions sum to the score for all of them."""
    data = data_of(random_stars())
    scorer = fitted(data, EASEConfig(max_items=12, tail_sources=5)).scorer
    assert scorer.weights.coverage == (12, 18)
    items = np.arange(30, dtype=np.int32)
    for user in (0, 7):
        profile = data.matrix.profiles([user])
        scores = scorer.score(profile)[0]
        for item, evidence in zip(items, scorer.rated_evidence(profile, items, 99), strict=True):
            total = float(evidence.contributions.sum()) + evidence.remainder
            assert total == pytest.approx(float(scores[item]), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tail_items", lambda a: a[::-1].copy()),
        ("tail_items", lambda a: a + 30),
        ("tail_sources", lambda a: a + 30),
        ("tail_indptr", lambda a: a[::-1].copy()),
        ("tail_forward", lambda a: np.full_like(a, np.nan)),
        ("tail_precisions", np.zeros_like),
    ],
)
def test_a_damaged_tail_is_refused(
    tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """A release with invalid sparse weights is not loaded."""
    data = data_of(random_stars())
    fitted(data, EASEConfig(max_items=12, tail_sources=5)).scorer.save(tmp_path)
    array = np.load(tmp_path / f"{name}.npy")
    # `save_array` refuses values that are not finite.
    np.save(tmp_path / f"{name}.npy", change(array))
    with pytest.raises(ArtifactError, match=name):
        EASEScorer.load(tmp_path, data)


def test_low_ratings_are_not_likes() -> None:
    """A profile with only ratings below the threshold scores 0 for all items."""
    data = data_of(random_stars())
    items = np.arange(5, dtype=np.int32)
    disliked = data.matrix.profile(-1, items, np.full(5, 2.5, np.float32))
    assert not fitted(data).scorer.score(disliked).any()
    liked = data.matrix.profile(-1, items, np.full(5, 3.0, np.float32))
    assert fitted(data).scorer.score(liked).any()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("items.npy", np.arange(1, 31, dtype=np.int32)),
        ("items.npy", np.arange(30, dtype=np.int32)[::-1]),
        ("items.npy", np.arange(29, dtype=np.int32)),
        ("weights.npy", np.zeros((30, 29), np.float32)),
        ("weights.npy", np.zeros((30, 30), np.float64)),
        ("precisions.npy", np.zeros(30, np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, name: str, array: np.ndarray) -> None:
    """Loading fails if an array is damaged or has the wrong shape or type."""
    data = data_of(random_stars())
    fitted(data).save(tmp_path)
    save_array(tmp_path / name, array)
    with pytest.raises(ArtifactError, match=r"items|weights|precisions"):
        EASEScorer.load(tmp_path, data)


def test_a_weight_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    """Loading fails if a file that `save_array` did not write contains NaN."""
    data = data_of(random_stars())
    fitted(data).save(tmp_path)
    np.save(tmp_path / "weights.npy", np.full((30, 30), np.nan, np.float32))
    with pytest.raises(ArtifactError, match=r"weights\.npy"):
        EASEScorer.load(tmp_path, data)


@pytest.mark.parametrize(
    "values",
    [
        {"minimum_stars": np.nan},
        {"indifference": -0.1},
        {"regularisation": 0.0},
        {"dropout": 1.0},
        {"activity_damping": np.inf},
        {"history_decay": -1.0},
        {"max_items": 0},
    ],
)
def test_an_invalid_configuration_is_refused(values: dict[str, float]) -> None:
    """A configuration with a value out of range cannot be created."""
    with pytest.raises(ValueError, match=next(iter(values))):
        EASEConfig(**values)  # type: ignore[arg-type]
