"""Bootstrap intervals and paired comparisons, compared with plain loops and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from marquee_core.arrays import Float64
from marquee_trainer.metrics import bootstrap
from marquee_trainer.metrics.bootstrap import bootstrap_interval, paired_bootstrap, user_means

numbers = st.floats(-10, 10, allow_subnormal=False)


@given(st.lists(st.tuples(st.integers(0, 6), numbers), min_size=1, max_size=40))
def test_user_means_weighted_by_counts_give_the_pooled_mean(rows: list[tuple[int, float]]) -> None:
    """The means also equal those of a plain loop over users."""
    users = np.array([user for user, _ in rows], dtype=np.int32)
    values = np.array([value for _, value in rows])
    means, counts = user_means(values, users)
    for place, user in enumerate(sorted(set(users.tolist()))):
        own = [value for other, value in rows if other == user]
        assert counts[place] == len(own)
        assert means[place] == pytest.approx(sum(own) / len(own), abs=1e-9)
    assert np.average(means, weights=counts) == pytest.approx(values.mean(), abs=1e-9)


def test_the_interval_approaches_the_normal_interval() -> None:
    """For many values, it is close to the mean ± 1.96 standard errors."""
    values = np.random.default_rng(1).normal(2.0, 3.0, size=4_000)
    found = bootstrap_interval(values, seed=0)
    error = values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


@pytest.mark.parametrize("weights", [None, np.array([1.0, 5.0, 2.0, 9.0])])
def test_resamples_match_a_plain_loop(
    weights: Float64 | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each resample is the weighted mean of users drawn with replacement, for any block size."""
    values = np.array([3.0, -1.0, 4.0, 1.5])
    random = np.random.default_rng(7)
    user_weights = np.ones(4) if weights is None else weights
    means = []
    for _ in range(200):
        drawn = random.integers(0, 4, size=4)
        means.append((values[drawn] * user_weights[drawn]).sum() / user_weights[drawn].sum())
    for draws in (1, 4 * 3, 10**6):
        monkeypatch.setattr(bootstrap, "_BLOCK_DRAWS", draws)
        found = bootstrap_interval(values, 7, weights, resamples=200, confidence=0.8)
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))


@pytest.mark.parametrize("weights", [None, np.array([1.0, 5.0, 2.0, 9.0, 3.0])])
def test_intervals_equal_those_of_scipy(weights: Float64 | None) -> None:
    """SciPy's percentile method draws the same resamples from the same generator."""
    values = np.array([3.0, -1.0, 4.0, 1.5, 0.25])
    user_weights = np.ones(5) if weights is None else weights
    expected = stats.bootstrap(
        (values * user_weights, user_weights),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        n_resamples=500,
        method="percentile",
        rng=np.random.default_rng(11),
    ).confidence_interval
    found = bootstrap_interval(values, 11, weights, resamples=500)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_real_difference_is_distinguished_from_chance() -> None:
    """A difference for every user has a small p-value, and a random difference a large one."""
    random = np.random.default_rng(3)
    first = random.normal(size=500)
    better = paired_bootstrap(first, first - 0.05, seed=0)
    assert better.difference.low == pytest.approx(0.05)
    assert better.p_value == pytest.approx(2 / (bootstrap.RESAMPLES + 1))
    noise = random.normal(size=500)
    same = paired_bootstrap(first, first + noise - noise.mean(), seed=0)
    assert same.difference.low < 0 < same.difference.high
    assert same.p_value > 0.5


def test_equal_values_have_a_p_value_of_one() -> None:
    """Without any difference, there is no evidence for one."""
    values = np.arange(20.0)
    assert paired_bootstrap(values, values, seed=0).p_value == 1.0


@settings(max_examples=30)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20), st.integers(0, 99))
def test_a_comparison_is_symmetric(rows: list[tuple[float, float]], seed: int) -> None:
    """Exchanging the sides changes the sign of the difference and keeps the p-value."""
    first, second = np.array(rows).T
    forward = paired_bootstrap(first, second, seed, resamples=100)
    reverse = paired_bootstrap(second, first, seed, resamples=100)
    assert reverse.difference.mean == pytest.approx(-forward.difference.mean, abs=1e-12)
    assert reverse.difference.low == pytest.approx(-forward.difference.high, abs=1e-9)
    assert reverse.p_value == forward.p_value


def test_empty_and_unpaired_values_are_refused() -> None:
    """An interval needs at least one value, and a pair needs both values."""
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval(np.empty(0), seed=0)
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        paired_bootstrap(np.ones(3), np.ones(2), seed=0)
