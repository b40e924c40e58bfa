"""Bootstrap intervals and paired comparisons against plain loops and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_core.arrays import Float64
from marquee_trainer.metrics import bootstrap
from marquee_trainer.metrics.bootstrap import bootstrap_interval, paired_bootstrap, user_means

numbers = st.floats(-10, 10, allow_subnormal=False)


@given(st.lists(st.tuples(st.integers(0, 6), numbers), min_size=1, max_size=40))
def test_user_means_weigh_back_to_the_pooled_mean(rows: list[tuple[int, float]]) -> None:
    """Means by user are those of a loop, and weighted by their counts they give the pooled mean."""
    users = np.array([user for user, _ in rows], dtype=np.int32)
    values = np.array([value for _, value in rows])
    means, counts = user_means(values, users)
    for place, user in enumerate(sorted(set(users.tolist()))):
        own = [value for other, value in rows if other == user]
        assert counts[place] == len(own)
        assert means[place] == pytest.approx(sum(own) / len(own), abs=1e-9)
    assert np.average(means, weights=counts) == pytest.approx(values.mean(), abs=1e-9)


def test_the_interval_of_a_mean_is_that_of_its_normal_law() -> None:
    """For many values it is the mean ± 1.96 standard errors."""
    values = np.random.default_rng(1).normal(2.0, 3.0, size=4_000)
    found = bootstrap_interval(values, seed=0)
    error = values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


@pytest.mark.parametrize("weights", [None, np.array([1.0, 5.0, 2.0, 9.0])])
def test_resamples_equal_a_plain_loop(
    weights: Float64 | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each resample is the weighted mean of users drawn with replacement, whatever the block."""
    values = np.array([3.0, -1.0, 4.0, 1.5])
    random = np.random.default_rng(7)
    heavy = np.ones(4) if weights is None else weights
    means = []
    for _ in range(200):
        drawn = random.integers(0, 4, size=4)
        means.append((values[drawn] * heavy[drawn]).sum() / heavy[drawn].sum())
    for draws in (1, 4 * 3, 10**6):
        monkeypatch.setattr(bootstrap, "_BLOCK_DRAWS", draws)
        found = bootstrap_interval(values, 7, weights, resamples=200, confidence=0.8)
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))


def test_a_real_difference_is_told_from_chance() -> None:
    """What differs for every user has a small p, what differs by chance a large one."""
    random = np.random.default_rng(3)
    first = random.normal(size=500)
    better = paired_bootstrap(first, first - 0.05, seed=0)
    assert better.difference.low == pytest.approx(0.05)
    assert better.p_value == pytest.approx(2 / (bootstrap.RESAMPLES + 1))
    noise = random.normal(size=500)
    same = paired_bootstrap(first, first + noise - noise.mean(), seed=0)
    assert same.difference.low < 0 < same.difference.high
    assert same.p_value > 0.5


def test_no_difference_has_a_p_of_one() -> None:
    """Equal values are no evidence."""
    values = np.arange(20.0)
    assert paired_bootstrap(values, values, seed=0).p_value == 1.0


@settings(max_examples=30)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20), st.integers(0, 99))
def test_a_comparison_is_the_same_from_either_side(
    rows: list[tuple[float, float]], seed: int
) -> None:
    """Exchanging the two turns the sign of the difference and leaves p as it is."""
    first, second = np.array(rows).T
    ahead = paired_bootstrap(first, second, seed, resamples=100)
    behind = paired_bootstrap(second, first, seed, resamples=100)
    assert behind.difference.mean == pytest.approx(-ahead.difference.mean, abs=1e-12)
    assert behind.difference.low == pytest.approx(-ahead.difference.high, abs=1e-9)
    assert behind.p_value == ahead.p_value


def test_values_that_cannot_be_drawn_or_paired_are_refused() -> None:
    """There is no interval of nothing, and no pairing of different users."""
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval(np.empty(0), seed=0)
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        paired_bootstrap(np.ones(3), np.ones(2), seed=0)
