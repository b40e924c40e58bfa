"""The generated sample: reproducible by its seed, similar to MovieLens, and learnable."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.film_titles import film_titles
from marquee_trainer.data.sample import (
    SampleConfig,
    generate_sample,
    generate_sample_with_tastes,
)
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import random_split

CONFIG = SampleConfig()


@pytest.fixture(scope="module")
def sample() -> RatingsDataset:
    """The default sample."""
    return generate_sample(CONFIG, seed=0)


def test_a_seed_gives_the_same_sample(sample: RatingsDataset) -> None:
    """Ratings, times, titles and genres are determined by the seed."""
    again = generate_sample(CONFIG, seed=0)
    assert again.fingerprint() == sample.fingerprint()
    np.testing.assert_array_equal(again.catalogue.title_text, sample.catalogue.title_text)
    np.testing.assert_array_equal(again.catalogue.genre_bits, sample.catalogue.genre_bits)
    np.testing.assert_array_equal(again.catalogue.years, sample.catalogue.years)
    np.testing.assert_array_equal(again.file_order, sample.file_order)


def test_another_seed_gives_another_sample(sample: RatingsDataset) -> None:
    """The sample depends on the seed."""
    assert generate_sample(CONFIG, seed=1).fingerprint() != sample.fingerprint()


def test_the_sample_has_the_requested_size(sample: RatingsDataset) -> None:
    """It contains all users and items, and as many ratings as requested."""
    assert len(sample.user_ids) == CONFIG.users
    assert len(sample.catalogue) == CONFIG.items
    assert len(sample) == CONFIG.ratings
    assert sample.scale == RatingScale(1.0, 5.0, 1.0)
    assert np.unique(sample.ratings).tolist() == [1, 2, 3, 4, 5]


def test_every_user_has_the_minimum_number_of_ratings(sample: RatingsDataset) -> None:
    """Activity is also skewed, as in MovieLens: the mean is well above the median."""
    counts = np.bincount(sample.users)
    assert counts.min() >= CONFIG.least
    assert counts.mean() > 1.2 * np.median(counts)


def test_popularity_has_a_long_tail(sample: RatingsDataset) -> None:
    """A fifth of the items has over 40 % of the ratings, and half of them less than 30 %."""
    counts = np.sort(np.bincount(sample.items))[::-1]
    assert counts[: CONFIG.items // 5].sum() > 0.4 * len(sample)
    assert counts[CONFIG.items // 2 :].sum() < 0.3 * len(sample)
    assert counts[0] > 5 * np.median(counts)


def test_titles_are_unique_and_have_years_and_genres(sample: RatingsDataset) -> None:
    """Titles identify items, and items can be filtered by year and genre."""
    catalogue = sample.catalogue
    assert len({catalogue.title(item) for item in range(CONFIG.items)}) == CONFIG.items
    assert catalogue.years.min() >= 1950
    assert catalogue.years.max() <= 2000
    assert all(1 <= len(catalogue.item_genres(item)) <= 3 for item in range(CONFIG.items))


def test_titles_are_unique_in_large_catalogues() -> None:
    """A large catalogue has numbered sequels."""
    titles = film_titles(3_000, np.random.default_rng(2))
    assert len(set(titles)) == 3_000
    assert any(title.endswith(" 2") for title in titles)


def factors_of(residuals: Float64, there: Float64, rank: int, ridge: float) -> Float64:
    """Return the residuals that ridge ALS predicts for all cells (users × items)."""
    random = np.random.default_rng(0)
    items = random.normal(0, 0.1, (residuals.shape[1], rank))
    users = np.zeros((residuals.shape[0], rank))
    for _ in range(8):
        users = solved(residuals, there, items, ridge)
        items = solved(residuals.T, there.T, users, ridge)
    product: Float64 = users @ items.T
    return product


def solved(residuals: Float64, there: Float64, factors: Float64, ridge: float) -> Float64:
    """Return the ridge regression of each row on the factors of the columns that it contains."""
    gram = np.einsum("rc,ci,cj->rij", there, factors, factors, optimize=True)
    gram += ridge * np.eye(factors.shape[1])
    found: Float64 = np.linalg.solve(gram, (residuals @ factors)[:, :, None])[:, :, 0]
    return found


def test_the_sample_has_tastes_to_learn(sample: RatingsDataset) -> None:
    """Eight factors predict held-out ratings clearly better than only biases."""
    split = random_split(sample.file_order, 0.1, 0)

    def part(rows: np.ndarray) -> tuple[Int32, Int32, Float32]:
        return sample.users[rows], sample.items[rows], sample.ratings[rows]

    users, items, stars = part(split.train)
    matrix = RatingsMatrix.of(users, items, stars, CONFIG.users, CONFIG.items)
    baseline = Baseline.fit(matrix, user_damping=5.0, item_damping=5.0, sweeps=10)
    biases = baseline.score(matrix.profiles(range(CONFIG.users)))
    residuals, there = np.zeros((2, CONFIG.users, CONFIG.items))
    residuals[users, items] = stars - biases[users, items]
    there[users, items] = 1.0
    tastes = factors_of(residuals, there, rank=8, ridge=12.0)
    users, items, stars = part(split.test)
    by_biases = np.mean((stars - biases[users, items]) ** 2)
    by_tastes = np.mean((stars - biases[users, items] - tastes[users, items]) ** 2)
    assert by_tastes < 0.95 * by_biases


def test_sizes_are_set_in_the_source() -> None:
    """`sample:users=…` generates the sample of the equivalent configuration."""
    config = SampleConfig(users=50, items=60, ratings=1_000)
    loaded = load_ratings("sample:users=50,items=60,ratings=1000", seed=4)
    assert loaded.dataset.fingerprint() == generate_sample(config, 4).fingerprint()
    assert loaded.split is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sample:people=5", "'people=5' is not one of users=…, items=… and ratings=…"),
        ("sample:users=50,users=50", "'users=50' is not one of"),
        ("sample:users=many", "'users=many' is not one of"),
        ("sample:users=-5", "'users=-5' is not one of"),
        ("sample:users=5", "at least 20 users"),
        ("sample:items=25", "30 items, not 600 and 25"),
        ("sample:ratings=100", "600 users and 500 items has 9000 to 150000 ratings, not 100"),
        ("sample:ratings=150001", "has 9000 to 150000 ratings, not 150001"),
    ],
)
def test_impossible_samples_are_refused(source: str, message: str) -> None:
    """An impossible sample is an error rather than replaced by a smaller one."""
    with pytest.raises(RatingsError, match=message):
        load_ratings(source)


def test_the_reported_tastes_explain_the_ratings() -> None:
    """The tastes explain the ratings as far as the noise allows, unlike those of other users."""
    dataset, tastes = generate_sample_with_tastes(CONFIG, seed=0)
    assert dataset.fingerprint() == generate_sample(CONFIG, seed=0).fingerprint()
    random = np.random.default_rng(1)
    rows = random.choice(len(dataset), 4_000, replace=False)
    users = [dataset.user_ids.id(int(user)) for user in dataset.users[rows]]
    items = [dataset.catalogue.items.id(int(item)) for item in dataset.items[rows]]
    again = [tastes.stars(u, i, random) for u, i in zip(users, items, strict=True)]
    others = [tastes.stars(u, i, random) for u, i in zip(users[1:], items, strict=False)]
    given = dataset.ratings[rows]
    assert set(again) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert abs(np.mean(again) - given.mean()) < 0.05
    assert np.corrcoef(again, given)[0, 1] > 0.4
    assert np.corrcoef(others, given[:-1])[0, 1] < 0.3


def test_a_sample_that_is_too_small_names_the_smallest() -> None:
    """Without terms that only the code knows."""
    with pytest.raises(RatingsError, match="at least 20 users and 30 items, not 20 and 20"):
        SampleConfig(users=20, items=20, ratings=300)
    assert SampleConfig(users=20, items=30, ratings=300).items == 30
