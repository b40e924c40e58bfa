"""SLIT: its weights, compared with solutions by hand and by direct regression."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.slit import SLITConfig
from marquee_trainer.models.linear import slit, tail
from marquee_trainer.models.linear.slit import SLIT
from marquee_trainer.models.linear.transitions import transitions
from marquee_trainer.models.model import Training

ITEMS = 12


def data_of(rows: list[tuple[int, int, float, int]], users: int, items: int) -> ReleaseData:
    """Return the data of ratings given as rows of user, item, stars and time."""
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    matrix = RatingsMatrix.of(
        columns[0].astype(np.int32),
        columns[1].astype(np.int32),
        columns[2].astype(np.float32),
        users,
        items,
        columns[3].astype(np.int64),
    )
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1))


def random_ratings(users: int = 40) -> list[tuple[int, int, float, int]]:
    """Draw ratings at few moments, so that several share a moment."""
    random = np.random.default_rng(0)
    return [
        (user, int(item), float(random.integers(1, 6)), int(random.integers(0, 5)))
        for user in range(users)
        for item in random.permutation(ITEMS)[: random.integers(0, 9)]
    ]


def fitted(data: ReleaseData, config: SLITConfig | None = None) -> SLIT:
    """Return a fitted model."""
    model = SLIT(config)
    model.fit(Training(data))
    return model


def test_toy_weights_by_hand() -> None:
    """The scores equal those computed by hand.

    One user liked items 0, 1 and 2 one after another, and both exponents are 1. After item 0 the
    history is (1, 0, 0) and the target (0, 1, 1/2). After item 1 the history is
    (1 / (1 + 1/2), 1, 0) = (2/3, 1, 0) and the target (0, 0, 1). So
    SᵀS = [[13/9, 2/3, 0], [2/3, 1, 0], [0, 0, 0]], whose mean diagonal is 22/27, and c = 27/22
    gives λ = 1; SᵀT = [[0, 1, 1/2 + 2/3], [0, 0, 1], 0].
    """
    data = data_of([(0, 0, 5, 10), (0, 1, 4, 11), (0, 2, 5, 12)], 1, 3)
    config = SLITConfig(history_decay=1.0, target_decay=1.0, regularisation=27 / 22)
    scorer = fitted(data, config).scorer
    weights = np.linalg.solve(
        np.array([[22 / 9, 2 / 3, 0], [2 / 3, 2, 0], [0, 0, 1]]),
        np.array([[0, 1, 7 / 6], [0, 0, 1], [0, 0, 0]]),
    )
    # The recency weights are 1 / (1 + 2/2), 1 / (1 + 1/2) and, for the latest rating, 1.
    np.testing.assert_allclose(
        scorer.score(data.matrix.profiles([0]))[0],
        np.array([1 / 2, 2 / 3, 1]) @ weights,
        rtol=1e-6,
    )


def test_weights_minimise_the_regression_over_all_moments() -> None:
    """B equals a direct ridge regression of the later likes on the history at each moment."""
    rows = random_ratings()
    data = data_of(rows, 40, ITEMS)
    config = SLITConfig(history_decay=0.7, target_decay=0.4, regularisation=0.5)
    histories, targets = [], []
    for user in range(40):
        own = [row for row in rows if row[0] == user]
        for moment in sorted({row[3] for row in own})[:-1]:
            history, target = np.zeros(ITEMS), np.zeros(ITEMS)
            for _, item, stars, time in own:
                if time <= moment:
                    between = sum(time < other[3] <= moment for other in own)
                    value = 1.0 if stars >= 3 else config.indifference
                    history[item] = value * (1 + between / 2) ** -0.7
                elif stars >= 3:
                    between = sum(moment < other[3] < time for other in own)
                    target[item] = (1 + between) ** -0.4
            histories.append(history)
            targets.append(target)
    s, t = np.array(histories), np.array(targets)
    gram = s.T @ s
    penalty = 0.5 * gram.diagonal().mean()
    expected = np.linalg.solve(gram + penalty * np.eye(ITEMS), s.T @ t)
    scorer = fitted(data, config).scorer
    # The scores of a visitor who rated one item are that item's row of B.
    rows_of_weights = [
        scorer.score(
            data.matrix.profile(-1, np.array([item], np.int32), np.array([5], np.float32))
        )[0]
        for item in range(ITEMS)
    ]
    np.testing.assert_allclose(rows_of_weights, expected, atol=1e-5)


def test_sampled_moments_are_evenly_spaced() -> None:
    """The first and the last moment of a user are among those that are used."""
    rows = [(0, item, 5.0, item) for item in range(ITEMS)]
    data = data_of(rows, 1, ITEMS)
    scorer = fitted(data, SLITConfig(moments=2, history_decay=0.0, target_decay=0.0)).scorer
    first = data.matrix.profile(-1, np.array([0], np.int32), np.array([5], np.float32))
    # At the first moment all other items come next, at the last one only item 11.
    scores = scorer.score(first)[0]
    assert scores[0] == pytest.approx(0.0, abs=1e-6)
    assert scores[1] > 0
    second = data.matrix.profile(-1, np.array([5], np.int32), np.array([5], np.float32))
    assert np.argmax(scorer.score(second)[0]) == ITEMS - 1
    assert scorer.score(second)[0][7] <= 0


def test_the_next_item_is_predicted_from_the_order_of_ratings() -> None:
    """If users rate items in the same sequence, the successor of the latest scores highest."""
    random = np.random.default_rng(1)
    rows = [
        (user, int((start + step) % ITEMS), 5.0, step)
        for user, start in enumerate(random.integers(0, ITEMS, 200))
        for step in range(6)
    ]
    data = data_of(rows, 200, ITEMS)
    scorer = fitted(data).scorer
    for order in ([2, 6, 10], [10, 2, 6], [6, 10, 2]):
        visitor = data.matrix.profile(-1, np.array(order, np.int32), np.full(3, 5, np.float32))
        assert np.argmax(scorer.score(visitor)[0]) == (order[-1] + 1) % ITEMS


def test_without_two_moments_nothing_is_learned() -> None:
    """Ratings that share a moment have no order, so all items score 0."""
    data = data_of([(0, 0, 5, 1), (0, 1, 5, 1), (1, 2, 5, 3)], 2, 3)
    assert not fitted(data).scorer.score(data.matrix.profiles([0, 1])).any()


@pytest.mark.parametrize(
    "values",
    [
        {"minimum_stars": np.nan},
        {"regularisation": 0.0},
        {"history_decay": -0.1},
        {"target_decay": np.inf},
        {"indifference": -1.0},
        {"moments": 1},
        {"max_items": 0},
    ],
)
def test_an_invalid_configuration_is_refused(values: dict[str, float]) -> None:
    """A configuration with a value out of range cannot be created."""
    with pytest.raises(ValueError, match=next(iter(values))):
        SLITConfig(**values)  # type: ignore[arg-type]


def test_the_tail_is_regressed_on_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all core items are sources, further items have the weights of a direct solution.

    The products with the tail are computed in several blocks.
    """
    monkeypatch.setattr(slit, "_TAIL_CELLS", 1)
    monkeypatch.setattr(slit, "TAIL_BLOCK", 2)
    monkeypatch.setattr(tail, "TAIL_BLOCK", 2)
    data = data_of(random_ratings(), 40, ITEMS)
    config = SLITConfig(max_items=7, tail_sources=7)
    weights = fitted(data, config).scorer.weights
    assert weights.coverage == (7, ITEMS - 7)
    gram, next_liked = transitions(
        data.matrix, np.arange(ITEMS, dtype=np.int32), config, data.dislike_limit
    )
    core = weights.items
    system = gram[np.ix_(core, core)].astype(np.float64)
    system += config.regularisation * system.diagonal().mean() * np.eye(7)
    for item in np.setdiff1d(np.arange(ITEMS), core):
        expected = np.linalg.solve(system, next_liked[core, item])
        np.testing.assert_allclose(weights.from_items(core, int(item)), expected, atol=1e-5)
