"""The interface that all models share: fit, predict, recommend, save, load."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.data.interactions import Interactions

# Users scored at once, so that the scores of a block fit the cache of the memory budget.
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class Epoch:
    """One point of a learning curve, in squared stars; None without validation data."""

    train_mse: float
    validation_mse: float | None


@dataclass(frozen=True)
class Training:
    """What a model is fitted on.

    Attributes:
        data: The training ratings, and the baseline fitted on them.
        validation: Held-out ratings that choose the number of epochs, and what else a model
            chooses; None to use the configuration as it is.
        seed: Of all randomness.
        on_epoch: Called after each epoch, for progress.
        relevant_stars: A validation item is relevant to a user who rated it at least so.
    """

    data: ReleaseData
    validation: Interactions | None = None
    seed: int = 0
    on_epoch: Callable[[Epoch], None] = lambda _: None
    relevant_stars: float = 4.0


@dataclass(frozen=True)
class Fit:
    """How a fit went.

    Attributes:
        curve: The learning curve; empty for models without epochs.
        epochs: The number of epochs to refit with; 0 for models without epochs.
    """

    curve: tuple[Epoch, ...] = ()
    epochs: int = 0


class Model(ABC):
    """A model that learns from a ratings matrix.

    A model is configured by its constructor's frozen config object, is fitted once, and then
    scores through `scorer`, the very object type that serves its saved artifacts.

    Attributes:
        name: The name on the wire and in releases.
        backend: The service that serves it: `cf` or `inference`.
    """

    name: ClassVar[str]
    backend: ClassVar[str]

    @abstractmethod
    def fit(self, training: Training) -> Fit:
        """Learns from ratings; deterministic for a seed and a machine."""

    @abstractmethod
    def with_epochs(self, epochs: int) -> Self:
        """An unfitted model of the same configuration but for the number of epochs.

        What a fit chose on validation ratings is part of the configuration.
        """

    @property
    def max_epochs(self) -> int:
        """After at most so many epochs a fit ends; 0 for models without epochs."""
        return 0

    @property
    @abstractmethod
    def scorer(self) -> Scorer:
        """Scores with what was learned.

        Raises:
            RuntimeError: The model is not fitted.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the artifacts that `load`, and the service, read."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Reads artifacts that `save` wrote.

        Raises:
            ArtifactError: The artifacts are not what they should be.
        """

    @property
    @abstractmethod
    def parameters(self) -> dict[str, object]:
        """The configuration, as the manifest records it."""

    def predict(self, data: ReleaseData, users: Int32, items: Int32) -> Float32:
        """Scores (user, item) pairs of known users (float32, n), not clipped."""
        return predict_pairs(self.scorer, data, users, items)

    def recommend(self, data: ReleaseData, user: int, count: int) -> Int32:
        """The unseen items that score best for a known user, best first (int32, count or less)."""
        scores = self.scorer.score(data.matrix.profiles([user]))[0]
        unseen = np.ones(len(scores), dtype=np.bool_)
        unseen[data.matrix.seen(user)] = False
        return top_indexes(scores, count, unseen).astype(np.int32)


def score_known(scorer: Scorer, data: ReleaseData) -> Callable[[Int32], Float32]:
    """How a model scores all items for known users: user indexes to scores (float32, B × items)."""
    return lambda users: scorer.score(data.matrix.profiles(users))


def predict_pairs(scorer: Scorer, data: ReleaseData, users: Int32, items: Int32) -> Float32:
    """Scores (user, item) pairs of known users, in blocks of users against all items.

    Args:
        scorer: The model.
        data: What it was fitted on.
        users: User indexes (int32, n), in any order.
        items: Item indexes (int32, n).

    Returns:
        Scores (float32, n), not clipped.
    """
    scores = np.empty(len(users), dtype=np.float32)
    order = np.argsort(users, kind="stable")
    distinct, starts = np.unique(users[order], return_index=True)
    ends = np.append(starts[1:], len(users))
    block = max(1, _BLOCK_CELLS // max(1, data.matrix.item_count))
    for first in range(0, len(distinct), block):
        part = distinct[first : first + block]
        dense = scorer.score(data.matrix.profiles(part))
        rows = order[starts[first] : ends[first + len(part) - 1]]
        scores[rows] = dense[np.searchsorted(part, users[rows]), items[rows]]
    return scores
