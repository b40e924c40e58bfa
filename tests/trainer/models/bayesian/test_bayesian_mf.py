"""Bayesian matrix factorization, from the sampler to the served scorer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from marquee_core.arrays import Float32, save_array
from marquee_core.errors import ArtifactError
from marquee_core.ratings import RatingsMatrix, join_profiles
from marquee_core.scorers.bayesian_mf import BayesianMFConfig, BayesianMFScorer
from marquee_core.scorers.posterior import Posterior
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.bayesian.gibbs import GibbsSampler, Links, gamma, wishart
from marquee_trainer.models.model import Epoch, Training, predict_pairs
from toy.ratings import release_data

USERS, ITEMS, NOISE = 90, 50, 0.4
QUICK = BayesianMFConfig(factors=3, sweeps=60, burn_in=20, samples=20)
NOTHING = np.empty(0, np.int32), np.empty(0, np.float32)


def planted() -> tuple[ReleaseData, Interactions]:
    """Draw ratings from 2 factors, biases and noise: 45 % for training, and a held-out part."""
    rng = np.random.default_rng(3)
    stars = 3.5 + rng.normal(scale=0.3, size=(USERS, 1)) + rng.normal(scale=0.3, size=ITEMS)
    stars = stars + rng.normal(size=(USERS, 2)) @ rng.normal(size=(2, ITEMS))
    stars += rng.normal(scale=NOISE, size=stars.shape)
    ratings: Float32 = stars.astype(np.float32)
    chosen = rng.random(stars.shape)
    data = release_data(np.where(chosen < 0.45, ratings, np.nan), sweeps=5)
    held = [part.astype(np.int32) for part in np.nonzero(chosen > 0.9)]
    return data, Interactions(held[0], held[1], ratings[held[0], held[1]])


@pytest.fixture(scope="module")
def fitted() -> tuple[BayesianMF, ReleaseData, Interactions]:
    """A model fitted to the planted ratings, with these ratings."""
    data, held_out = planted()
    model = BayesianMF(QUICK)
    model.fit(Training(data))
    return model, data, held_out


def random_posterior(samples: int, factors: int) -> Posterior:
    """Return random parameters."""
    rng = np.random.default_rng(5)
    roots = rng.normal(size=(samples, factors + 1, factors + 1))
    return Posterior(
        rng.normal(size=(ITEMS, samples, factors)).astype(np.float32),
        rng.normal(3.0, 1.0, size=(ITEMS, samples)).astype(np.float32),
        rng.gamma(4.0, 0.25, size=(ITEMS, samples)).astype(np.float32),
        rng.normal(size=(ITEMS, samples, factors + 1)).astype(np.float32),
        rng.normal(size=(samples, factors + 1)),
        roots @ roots.transpose(0, 2, 1) + np.eye(factors + 1),
        rng.uniform(0.5, 2.0, size=samples),
    )


def test_planted_factors_are_recovered(
    fitted: tuple[BayesianMF, ReleaseData, Interactions],
) -> None:
    """The error on held-out ratings is close to their noise, unlike that of biases."""
    model, data, held_out = fitted
    predictions = predict_pairs(model.scorer, data, held_out.users, held_out.items)
    error = float(np.mean(np.square(predictions - held_out.ratings)))
    biases = data.baseline.score(data.matrix.all_profiles())[held_out.users, held_out.items]
    assert error < 1.6 * NOISE**2
    assert error < 0.2 * float(np.mean(np.square(biases - held_out.ratings)))


def test_a_visitor_with_a_users_ratings_has_that_users_vector(
    fitted: tuple[BayesianMF, ReleaseData, Interactions],
) -> None:
    """Folding in a known user's ratings gives a vector bit-identical to the stored one."""
    model, data, _ = fitted
    for user in (0, 31, USERS - 1):
        known = data.matrix.profiles([user])
        visitor = data.matrix.profile(-1, known.items, known.ratings)
        np.testing.assert_array_equal(model.scorer.vectors(visitor), model.scorer.vectors(known))
        np.testing.assert_array_equal(model.scorer.score(visitor), model.scorer.score(known))


def test_a_new_rating_changes_similar_items(
    fitted: tuple[BayesianMF, ReleaseData, Interactions],
) -> None:
    """After a very low rating of an item, the predictions for the most similar items fall."""
    model, data, _ = fitted
    row = model.scorer.similarities(7)
    nearest = np.argsort(-row, kind="stable")[1:4]
    disliked = np.array([7], np.int32), np.array([0.0], np.float32)
    before, after = model.scorer.score(
        join_profiles([data.matrix.profiles([4]), data.matrix.profile(4, *disliked)])
    )
    assert (after[nearest] < before[nearest]).all()


@pytest.mark.parametrize("count", [1, 5, 30])
def test_folding_in_gives_the_ridge_solution(count: int) -> None:
    """In each sample the vector minimises α Σ γ (r − …)² + (x − prior mean)ᵀ Λ (x − prior mean).

    The test solves the same problem as a stacked least-squares problem.
    """
    samples, factors = 4, 3
    posterior = random_posterior(samples, factors)
    rng = np.random.default_rng(count)
    items = np.sort(rng.choice(ITEMS, count, replace=False)).astype(np.int32)
    stars = rng.integers(1, 6, count).astype(np.float32)
    matrix = RatingsMatrix.of(np.zeros(count, np.int32), items, stars, 1, ITEMS)
    folded = posterior.fold(matrix.all_profiles())[0] * samples
    biases = 0.0
    for sample in range(samples):
        design = np.column_stack([posterior.item_factors[items, sample], np.ones(count)])
        mean = posterior.user_means[sample]
        mean = mean + posterior.links[items, sample].sum(axis=0) / np.sqrt(count)
        alpha = np.sqrt(posterior.noise_precisions[sample] * posterior.item_noise[items, sample])
        root = np.linalg.cholesky(posterior.user_precisions[sample]).T
        rows = np.vstack([alpha[:, None] * design, root])
        targets = np.append(alpha * (stars - posterior.item_biases[items, sample]), root @ mean)
        vector = np.linalg.lstsq(rows, targets)[0]
        part = folded[sample * factors : (sample + 1) * factors]
        np.testing.assert_allclose(part, vector[:factors], atol=1e-3)
        biases += vector[factors]
    assert folded[-1] == pytest.approx(biases, abs=1e-3)


def test_without_ratings_predictions_follow_from_the_prior() -> None:
    """A visitor without ratings gets the mean of μ + b_i + m · (q_i, 1) over the samples."""
    posterior = random_posterior(4, 3)
    data = release_data(np.zeros((0, ITEMS)), sweeps=1)
    config = BayesianMFConfig(factors=3, sweeps=4, burn_in=0, samples=4)
    scorer = BayesianMFScorer.of(config, posterior, data)
    products = np.einsum("isk,sk->i", posterior.item_factors, posterior.user_means[:, :3]) / 4
    expected = posterior.item_biases.mean(axis=1) + products + posterior.user_means[:, 3].mean()
    scores = scorer.score(data.matrix.profile(-1, *NOTHING))[0]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_predictions_for_a_new_user_are_close_to_the_baseline(
    fitted: tuple[BayesianMF, ReleaseData, Interactions],
) -> None:
    """Without ratings, the model's μ + b_i is close to that of the baseline."""
    model, data, _ = fitted
    visitor = data.matrix.profile(-1, *NOTHING)
    gap = model.scorer.score(visitor) - data.baseline.score(visitor)
    assert float(np.abs(gap).mean()) < 0.2


def test_sampled_and_served_predictions_agree(
    fitted: tuple[BayesianMF, ReleaseData, Interactions],
) -> None:
    """The last point of the curve, for which users are also sampled, agrees with the scorer."""
    data, held_out = planted()
    model = BayesianMF(QUICK)
    reported: list[Epoch] = []
    fit = model.fit(Training(data, held_out, 0, reported.append))
    assert reported == list(fit.curve)
    assert len(reported) == QUICK.sweeps
    served = predict_pairs(model.scorer, data, held_out.users, held_out.items)
    error = float(np.mean(np.square(served - held_out.ratings)))
    assert fit.curve[-1].validation_mse == pytest.approx(error, rel=0.1)
    assert all(
        epoch.validation_mse is None for epoch in BayesianMF(QUICK).fit(Training(data)).curve
    )
    # Validation ratings do not change the model.
    without = predict_pairs(fitted[0].scorer, data, held_out.users, held_out.items)
    np.testing.assert_array_equal(served, without)


def test_the_seed_determines_the_model(
    fitted: tuple[BayesianMF, ReleaseData, Interactions],
) -> None:
    """The same seed gives a bit-identical model, and another seed gives a different one."""
    model, data, _ = fitted
    profiles = data.matrix.all_profiles()
    expected = model.scorer.score(profiles)
    for seed in (0, 1):
        again = BayesianMF(model.config)
        again.fit(Training(data, seed=seed))
        assert np.array_equal(again.scorer.score(profiles), expected) == (seed == 0)


def test_similarities_are_correlations(
    fitted: tuple[BayesianMF, ReleaseData, Interactions],
) -> None:
    """Similarities are symmetric, and do not depend on the basis of the factors."""
    model, _, _ = fitted
    rows = [model.scorer.similarities(item) for item in range(ITEMS)]
    square = np.stack(rows)
    np.testing.assert_allclose(square, square.T, atol=1e-5)
    posterior = random_posterior(4, 3)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] * 2.0
    whole = np.eye(4)
    whole[:3, :3] = np.linalg.inv(turn).T
    turned = replace(
        posterior,
        item_factors=(posterior.item_factors @ turn).astype(np.float32),
        user_precisions=np.linalg.inv(
            whole.T @ np.linalg.inv(posterior.user_precisions) @ whole
        ).astype(np.float64),
    )
    np.testing.assert_allclose(turned.correlations(3), posterior.correlations(3), atol=1e-4)
    between = posterior.correlations_between(np.array([3, 0], np.int32), np.array([1, 5], np.int32))
    expected = [posterior.correlations(item)[[1, 5]] for item in (3, 0)]
    np.testing.assert_allclose(between, expected, atol=1e-5)


def damaged(name: str, posterior: Posterior) -> np.ndarray:
    """Return an array of the right shape and type with an invalid value."""
    array: np.ndarray = getattr(posterior, name).copy()
    if name in ("noise_precisions", "item_noise"):
        array[1] = 0.0
    elif name == "user_precisions":
        array[1] = -np.eye(array.shape[1])
    else:
        array[1] = np.nan
    return array


@pytest.mark.parametrize(
    "name",
    [
        "item_factors",
        "item_biases",
        "item_noise",
        "links",
        "user_means",
        "user_precisions",
        "noise_precisions",
    ],
)
def test_impossible_parameters_are_refused(
    name: str, fitted: tuple[BayesianMF, ReleaseData, Interactions], tmp_path: Path
) -> None:
    """Loading fails if a value is not finite, or a precision is not positive."""
    model, data, _ = fitted
    model.save(tmp_path)
    posterior = Posterior.load(tmp_path, ITEMS, QUICK.samples, QUICK.factors)
    np.save(tmp_path / f"{name}.npy", damaged(name, posterior))
    with pytest.raises(ArtifactError, match=name):
        BayesianMFScorer.load(tmp_path, data)


def test_vectors_of_other_users_are_refused(
    fitted: tuple[BayesianMF, ReleaseData, Interactions], tmp_path: Path
) -> None:
    """Loading fails unless there is one vector for each known user."""
    model, data, _ = fitted
    model.save(tmp_path)
    users: Float32 = np.zeros((USERS - 1, QUICK.samples * QUICK.factors + 1), np.float32)
    save_array(tmp_path / "users.npy", users)
    with pytest.raises(ArtifactError, match=r"users\.npy"):
        BayesianMFScorer.load(tmp_path, data)


@pytest.mark.parametrize(
    "values",
    [
        {"factors": 0},
        {"samples": 0},
        {"burn_in": -1},
        {"max_linked": 0},
        {"sweeps": 119},
        {"user_noise_shape": 0.0},
        {"item_noise_shape": np.nan},
    ],
)
def test_an_invalid_configuration_is_refused(values: dict[str, Any]) -> None:
    """A configuration with a value out of range cannot be created."""
    with pytest.raises(ValueError, match=next(iter(values))):
        replace(BayesianMFConfig(burn_in=60, samples=60), **values)


@given(st.integers(0, 50), st.integers(1, 40), st.integers(0, 70))
def test_the_configured_number_of_sweeps_is_sampled(burn: int, samples: int, more: int) -> None:
    """Samples are evenly spaced, end with the last sweep, and exclude the burn-in."""
    config = BayesianMFConfig(sweeps=burn + samples + more, burn_in=burn, samples=samples)
    sampled = [sweep for sweep in range(config.sweeps) if config.takes_sample(sweep)]
    assert len(sampled) == samples
    assert sampled[0] >= burn
    assert sampled[-1] == config.sweeps - 1
    assert len(set(np.diff(sampled))) <= 1


@pytest.mark.parametrize("shape", [(20, 31), (31, 20)])
def test_links_are_solved_as_a_dense_ridge_problem(shape: tuple[int, int]) -> None:
    """The solution is correct whichever side is smaller; the features are 1/√n."""
    rng = np.random.default_rng(2)
    rated = rng.random(shape) < 0.3
    rated[0] = False
    links = Links(csr_array(rated * rng.normal(size=shape)), 100)
    features = rated / np.sqrt(np.maximum(rated.sum(axis=1, keepdims=True), 1))
    np.testing.assert_allclose(links.features.toarray(), features)
    targets, noise = rng.normal(size=(shape[0], 3)), rng.normal(size=(shape[1], 3))
    penalty = 0.7
    expected = np.linalg.solve(
        features.T @ features + penalty * np.eye(shape[1]),
        features.T @ targets + np.sqrt(penalty) * noise,
    )
    np.testing.assert_allclose(links.ridge(targets, noise, penalty), expected, atol=1e-10)


def test_links_are_limited_to_the_columns_with_the_most_ratings() -> None:
    """Above the limit, only the columns with the most ratings are used."""
    rated = np.zeros((6, 5))
    for column, count in enumerate([3, 1, 6, 2, 4]):
        rated[:count, column] = 1.0
    assert Links(csr_array(rated), 2).columns.tolist() == [2, 4]
    assert Links(csr_array(rated), 5).columns.tolist() == [0, 1, 2, 3, 4]


def test_precisions_are_drawn_from_their_distributions() -> None:
    """The means of many draws are those of the Gamma and Wishart distributions."""
    rng = np.random.default_rng(0)
    draws = [gamma(rng, 19, 4.0) for _ in range(4000)]
    assert np.mean(draws) == pytest.approx((1 + 19) / (1 + 4.0), rel=0.03)
    scale = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.3]])
    matrices = [wishart(rng, 7.0, np.linalg.inv(scale)) for _ in range(4000)]
    np.testing.assert_allclose(np.mean(matrices, axis=0), 7 * scale, atol=0.1)


def test_the_chain_estimates_the_noise_of_each_user() -> None:
    """α approaches 1 / variance of each user's noise; half of the users are much noisier."""
    data, _ = planted()
    matrix, rng = data.matrix, np.random.default_rng(4)
    noisy = np.where(matrix.users % 2, rng.normal(scale=1.5, size=matrix.rating_count), 0.0)
    changed = replace(matrix, ratings=(matrix.ratings + noisy).astype(np.float32))
    chain = GibbsSampler(changed, data.baseline.mean, 3, (1.0, 1e6), 100, 0)
    found = []
    for sweep in range(80):
        chain.sweep()
        if sweep >= 30:
            found.append(chain.users.noise)
    means = np.mean(found, axis=0)
    assert np.median(means[::2]) == pytest.approx(NOISE**-2, rel=0.25)
    assert np.median(means[1::2]) == pytest.approx(1 / (1.5**2 + NOISE**2), rel=0.25)


def test_a_chain_on_a_single_rating_runs() -> None:
    """A matrix with one rating can be fitted, including users and items without any."""
    stars = np.zeros((3, 4))
    stars[1, 2] = 4.0
    data = release_data(stars, sweeps=1)
    model = BayesianMF(QUICK)
    model.fit(Training(data))
    assert np.isfinite(model.scorer.score(data.matrix.all_profiles())).all()
