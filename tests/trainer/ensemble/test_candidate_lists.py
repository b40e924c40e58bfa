"""The candidate lists that blends are learned from: all items, or a sample in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.ensemble import candidate_lists
from marquee_trainer.ensemble.blends import (
    BlendConfig,
    learn_listwise_blend,
    learn_ranking_blend,
)
from marquee_trainer.ensemble.candidate_lists import collect_lists
from marquee_trainer.ensemble.weight_search import SearchConfig
from marquee_trainer.metrics.ranking_metrics import RankingTask
from toy.ratings import ratings_matrix

USERS, ITEMS = 50, 600
CONFIG = BlendConfig(search=SearchConfig(depth=10))
MODELS = ("one", "two", "noise")


@dataclass(frozen=True)
class TableScorer:
    """Scores from a table of users and items."""

    table: Float32
    output = Output.AFFINITY

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Return the rows of the users."""
        assert items is None
        return self.table[profiles.user_index]


@pytest.fixture(scope="module")
def task() -> RankingTask:
    """Users with a few training ratings and up to ten relevant items."""
    random = np.random.default_rng(0)
    train = ratings_matrix(5 * (random.random((USERS, ITEMS)) < 0.05))
    relevant = random.random((USERS, ITEMS)) < 0.01
    relevant[:, 0] = True
    rated = train.users, train.items
    relevant[rated] = False
    users, items = np.nonzero(relevant)
    stars = np.full(len(users), 5, np.float32)
    test = Interactions(users.astype(np.int32), items.astype(np.int32), stars)
    return RankingTask.of(train, test, 4.0)


@pytest.fixture(scope="module")
def scorers(task: RankingTask) -> dict[str, TableScorer]:
    """Two models that recognise half of the relevant items each, and noise."""
    random = np.random.default_rng(1)
    relevant = np.zeros((USERS, ITEMS), np.bool_)
    relevant[task.users[task.relevant_users], task.relevant_items] = True
    half = random.random(ITEMS) < 0.5
    signals = (1.0 * (relevant & half), 10.0 * (relevant & ~half), np.zeros((USERS, ITEMS)))
    return {
        name: TableScorer((3 * signal + random.normal(size=(USERS, ITEMS))).astype(np.float32))
        for name, signal in zip(MODELS, signals, strict=True)
    }


def test_lists_of_a_small_catalogue_hold_all_items(
    task: RankingTask, scorers: dict[str, TableScorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, candidates and relevant items are those of the task, even in several blocks."""
    monkeypatch.setattr(candidate_lists, "_BLOCK_CELLS", 7 * ITEMS)
    lists = collect_lists(task, scorers, CONFIG, seed=0)
    assert lists.weights is None
    candidates, relevant = task.lists(np.arange(len(task.users)))
    np.testing.assert_array_equal(lists.candidates, candidates)
    np.testing.assert_array_equal(lists.relevant, relevant)
    for name, scorer in scorers.items():
        np.testing.assert_array_equal(lists.scores[name], scorer.table[task.users])


def test_sampled_lists_represent_all_candidates(
    task: RankingTask, scorers: dict[str, TableScorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They include all relevant items and each model's best, and weights sum to all candidates."""
    monkeypatch.setattr(candidate_lists, "_BLOCK_CELLS", 7 * ITEMS)
    config = replace(CONFIG, max_list_items=120)
    lists = collect_lists(task, scorers, config, seed=0)
    assert lists.candidates.shape == (len(task.users), 120)
    assert lists.weights is not None
    candidates, relevant = task.lists(np.arange(len(task.users)))
    np.testing.assert_allclose(lists.weights.sum(axis=1), candidates.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(lists.relevant.sum(axis=1), relevant.sum(axis=1))
    for name, scorer in scorers.items():
        whole = np.where(candidates, scorer.table[task.users], -np.inf)
        best = -np.sort(-whole, axis=1)[:, :10]
        listed = np.where(lists.candidates, lists.scores[name], -np.inf)
        np.testing.assert_array_equal(-np.sort(-listed, axis=1)[:, :10], best)
        assert lists.scale(name) == pytest.approx(float(whole[candidates].std()), rel=1e-4)


def test_blends_of_sampled_lists_are_close_to_those_of_all_candidates(
    task: RankingTask, scorers: dict[str, TableScorer]
) -> None:
    """The listwise weights differ little, and the searched blend ranks equally well."""
    whole = collect_lists(task, scorers, CONFIG, seed=0)
    sampled = collect_lists(task, scorers, replace(CONFIG, max_list_items=150), seed=0)
    full = learn_listwise_blend(whole, MODELS, CONFIG.ranking_ridge).weights
    part = learn_listwise_blend(sampled, MODELS, CONFIG.ranking_ridge).weights
    for name in ("one", "two"):
        assert part[name] == pytest.approx(full[name], rel=0.15)
    assert set(learn_ranking_blend(sampled, MODELS, CONFIG).weights) == {"one", "two"}
