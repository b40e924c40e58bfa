"""The reference rankers (public libraries, EASE and popularity) and their parameter grids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from scipy.sparse import csr_matrix

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.scorers.ease import EASEConfig
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Training, score_known
from marquee_trainer.training.config import BaselineConfig
from marquee_trainer.training.preparation import release_data

Score = Callable[[Int32], Float32]
_THREADS = 2
_DAY_S = 86_400.0
_LIKED_STARS = 4.0
_NEIGHBOURS = {"cosine": CosineRecommender, "tf-idf": TFIDFRecommender, "bm25": BM25Recommender}


@dataclass(frozen=True)
class Reference:
    """A reference ranker.

    Attributes:
        name: Name in the table.
        grid: The values to try for each parameter.
        fit: Fits the ranker, given the data set, the rows to train on and the parameters. Returns a
            function that scores all items for users (float32, users × items).
    """

    name: str
    grid: Mapping[str, tuple[Any, ...]]
    fit: Callable[[RatingsDataset, Int64, Mapping[str, Any]], Score]

    def candidates(self) -> Iterator[dict[str, Any]]:
        """Yields all combinations of the grid's values."""
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


def likes(dataset: RatingsDataset, rows: Int64, minimum_stars: float) -> csr_matrix:
    """Makes a matrix of likes: 1 where a rating reaches the minimum (float32, users × items)."""
    liked = rows[dataset.ratings[rows] >= minimum_stars]
    shape = len(dataset.user_ids), len(dataset.catalogue)
    ones = np.ones(len(liked), np.float32)
    return csr_matrix((ones, (dataset.users[liked], dataset.items[liked])), shape=shape)


def _als(dataset: RatingsDataset, rows: Int64, values: Mapping[str, Any]) -> Score:
    return _factors(
        AlternatingLeastSquares(
            factors=values["factors"],
            regularization=values["regularization"],
            alpha=values["alpha"],
            iterations=15,
            use_gpu=False,
            num_threads=_THREADS,
            random_state=0,
        ),
        likes(dataset, rows, values["minimum_stars"]),
    )


def _bpr(dataset: RatingsDataset, rows: Int64, values: Mapping[str, Any]) -> Score:
    return _factors(
        BayesianPersonalizedRanking(
            factors=values["factors"],
            learning_rate=values["learning_rate"],
            regularization=values["regularization"],
            iterations=100,
            use_gpu=False,
            num_threads=_THREADS,
            random_state=0,
        ),
        likes(dataset, rows, values["minimum_stars"]),
    )


def _factors(model: Any, matrix: csr_matrix) -> Score:
    model.fit(matrix, show_progress=False)
    users, items = np.asarray(model.user_factors), np.asarray(model.item_factors)

    def score(chosen: Int32) -> Float32:
        scores: Float32 = (users[chosen] @ items.T).astype(np.float32)
        return scores

    return score


def _neighbours(dataset: RatingsDataset, rows: Int64, values: Mapping[str, Any]) -> Score:
    model = _NEIGHBOURS[values["weights"]](K=values["neighbours"], num_threads=_THREADS)
    matrix = likes(dataset, rows, values["minimum_stars"])
    model.fit(matrix, show_progress=False)
    similar = model.similarity.tocsr()

    def score(chosen: Int32) -> Float32:
        scores: Float32 = (matrix[chosen] @ similar).toarray().astype(np.float32)
        return scores

    return score


def _ease(dataset: RatingsDataset, rows: Int64, values: Mapping[str, Any]) -> Score:
    data = release_data(dataset, rows, BaselineConfig())
    model = EASE(EASEConfig(**values))
    model.fit(Training(data))
    return score_known(model.scorer, data)


def _popular(dataset: RatingsDataset, rows: Int64, values: Mapping[str, Any]) -> Score:
    """Ranks by the number of ratings, weighted by 0.5 per half-life before the latest rating."""
    times = dataset.timestamps[rows]
    ages = (times.max() - times) / _DAY_S
    half_life = values["half_life_days"]
    weights = np.ones(len(rows)) if half_life is None else 0.5 ** (ages / half_life)
    counts = np.bincount(dataset.items[rows], weights, minlength=len(dataset.catalogue))
    row = counts.astype(np.float32)
    return lambda chosen: np.broadcast_to(row, (len(chosen), len(row))).copy()


REFERENCES = (
    Reference(
        "implicit ALS",
        {
            "factors": (16, 32, 64),
            "regularization": (0.01, 1.0, 10.0),
            "alpha": (1.0, 4.0, 15.0),
            "minimum_stars": (0.0, _LIKED_STARS),
        },
        _als,
    ),
    Reference(
        "implicit BPR",
        {
            "factors": (32, 64),
            "learning_rate": (0.02, 0.05),
            "regularization": (0.01, 0.03),
            "minimum_stars": (0.0, _LIKED_STARS),
        },
        _bpr,
    ),
    Reference(
        "implicit item-item",
        {
            "weights": tuple(_NEIGHBOURS),
            "neighbours": (20, 50, 100, 200),
            "minimum_stars": (0.0, _LIKED_STARS),
        },
        _neighbours,
    ),
    Reference(
        "EASE",
        {
            "regularisation": (20.0, 40.0, 70.0, 120.0, 200.0),
            "minimum_stars": (0.5, 3.0, _LIKED_STARS),
        },
        _ease,
    ),
    Reference("most popular", {"half_life_days": (None,)}, _popular),
    Reference("recently popular", {"half_life_days": (3.0, 10.0, 30.0, 100.0, 300.0)}, _popular),
)
