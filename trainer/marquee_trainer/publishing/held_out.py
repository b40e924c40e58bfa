"""The evaluation of a release on held-out ratings, stored so that later releases can be compared.

The models that a release serves were refitted on all ratings, including the test ratings, so these
cannot be used to judge them. A release therefore stores what its models predicted and recommended
for a sample of users before the refit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32, Int64, load_array, save_array
from marquee_core.catalogue import Vocabulary
from marquee_core.release.contents import EVALUATION
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.ranking_metrics import rank_candidates
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import TrainingResult

FOLDER = EVALUATION
MAX_USERS = 1_000
"""Largest number of users that are stored. They are chosen by the digests of their ids, so releases
have users in common."""
LIST_LENGTH = 100
_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True)
class HeldOutEvaluation:
    """Test ratings of some users, with the predictions and lists of the ensemble before the refit.

    Attributes:
        users: Indexes of the users, ascending (int32, users).
        indptr: User u's test ratings are at `indptr[u]:indptr[u + 1]` (int64, users + 1).
        items: The rated items (int32, ratings).
        ratings: The ratings (float32, ratings).
        predicted: The predictions, in stars, not clipped; empty for implicit feedback (float32).
        lists: The best items for each user among those not rated in training, best first, padded
            with -1 (int32, users × `LIST_LENGTH`).
    """

    users: Int32
    indptr: Int64
    items: Int32
    ratings: Float32
    predicted: Float32
    lists: Int32

    @classmethod
    def of(
        cls, dataset: RatingsDataset, split: Split, trained: TrainingResult
    ) -> HeldOutEvaluation:
        """Extracts the evaluation of trained models for a sample of its users.

        Args:
            dataset: The ratings.
            split: Their training and test part.
            trained: The models as they were evaluated, and their evaluation.
        """
        tested = trained.evaluation.rows(split)
        test_users = dataset.users[tested]
        users = sample_users(dataset.user_ids, np.unique(test_users))
        rows = np.flatnonzero(np.isin(test_users, users))
        rows = rows[np.lexsort((dataset.items[tested][rows], test_users[rows]))]
        predictions = trained.evaluation.predictions.get(ENSEMBLE)
        is_implicit = dataset.feedback is Feedback.IMPLICIT
        lists = _lists(trained, users, is_implicit)
        modelled = dataset.modelled_items
        if modelled is not None:
            lists = np.where(lists >= 0, modelled[lists], np.int32(-1))
        indptr = np.zeros(len(users) + 1, np.int64)
        np.cumsum(np.bincount(np.searchsorted(users, test_users[rows])), out=indptr[1:])
        return cls(
            users,
            indptr,
            dataset.items[tested][rows],
            dataset.ratings[tested][rows],
            np.empty(0, np.float32)
            if is_implicit or predictions is None
            else predictions[rows].astype(np.float32),
            lists,
        )

    def save(self, folder: Path) -> None:
        """Writes the arrays to a subfolder of the release."""
        for name in self.__dataclass_fields__:
            save_array(folder / FOLDER / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> HeldOutEvaluation:
        """Reads the arrays that `save` wrote.

        Raises:
            ArrayError: A file is missing or damaged.
        """
        path = folder / FOLDER
        users = load_array(path / "users.npy", np.int32, (None,))
        indptr = load_array(path / "indptr.npy", np.int64, (len(users) + 1,))
        count = int(indptr[-1])
        return cls(
            users,
            indptr,
            load_array(path / "items.npy", np.int32, (count,)),
            load_array(path / "ratings.npy", np.float32, (count,)),
            load_array(path / "predicted.npy", np.float32, (None,)),
            load_array(path / "lists.npy", np.int32, (len(users), None)),
        )


def sample_users(ids: Vocabulary, users: Int32, most: int = MAX_USERS) -> Int32:
    """Samples users so that different releases choose the same ones (int32, ascending).

    Args:
        ids: The ids of all users.
        users: Indexes of the users to choose from, ascending (int32, n).
        most: The limit.
    """
    if len(users) <= most:
        return users
    digests = np.array(
        [
            int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
            for name in ids.ids(users)
        ],
        np.uint64,
    )
    return np.sort(users[np.argsort(digests, kind="stable")[:most]])


def _lists(trained: TrainingResult, users: Int32, is_implicit: bool) -> Int32:
    """The best items that the evaluated ensemble recommends to each user (int32)."""
    data, models = trained.data, trained.models
    blends = trained.ensemble.blends(sorted({model.backend for model in models}))
    scorers = {m.name: m.scorer for m in (*fitted_baselines(data, is_implicit), *models)}
    item_count = data.matrix.item_count
    lists = np.full((len(users), LIST_LENGTH), -1, np.int32)
    block = max(1, _BLOCK_CELLS // max(1, item_count))
    for first in range(0, len(users), block):
        part = users[first : first + block]
        profiles = data.matrix.profiles(part)
        candidates = np.ones((len(part), item_count), np.bool_)
        candidates[profiles.rows, profiles.items] = False
        scores = {name: scorers[name].score(profiles) for name in blends.ranking.weights}
        ranking = blends.ranking.apply(scores).astype(np.float32)
        lists[first : first + len(part)] = best_items(ranking, candidates)
    return lists


def best_items(scores: Float32, candidates: Bool) -> Int32:
    """The best candidates of each row, best first, padded with -1 (int32, B × `LIST_LENGTH`).

    Args:
        scores: Scores (B × items).
        candidates: True for candidate items (bool, B × items).

    Raises:
        ValueError: A candidate's score is NaN.
    """
    ranked = rank_candidates(scores, candidates, LIST_LENGTH)
    is_candidate = np.take_along_axis(candidates, ranked, axis=1)
    best = np.full((len(scores), LIST_LENGTH), -1, np.int32)
    best[:, : ranked.shape[1]] = np.where(is_candidate, ranked, -1)
    return best
