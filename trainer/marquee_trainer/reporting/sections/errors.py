"""Errors by the amount of training data, and the calibration of predicted stars."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from marquee_core.arrays import Bool, Float64
from marquee_core.release.ensemble import BASELINE
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.reporting import plots
from marquee_trainer.reporting.page import Section
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import TrainingResult


def error_section(
    dataset: RatingsDataset,
    test: Interactions,
    trained: TrainingResult,
    squared: Mapping[str, Float64],
) -> Section:
    """The errors of users known and unknown in training, and the calibration of the ensemble.

    Args:
        dataset: The ratings.
        test: The test ratings (n).
        trained: The models and their predictions.
        squared: By model and for the ensemble, the squared error of each test rating, in squared
            stars (float64, n).
    """
    matrix = trained.data.matrix
    user_counts = np.diff(matrix.indptr)[test.users]
    by_count = plots.error_by_count(squared, user_counts, matrix.item_counts[test.items])
    predicted = np.clip(
        trained.evaluation.predictions[ENSEMBLE], dataset.scale.low, dataset.scale.high
    )
    return Section(
        "Where the errors are",
        "The charts show the error by the number of training ratings of the user and of the item, "
        "and the calibration of the ensemble: the mean of the true ratings against the predicted "
        "stars. For a user without training ratings, a model knows only how the item is rated in "
        "general, so it can hardly improve on the baseline.",
        ("users", "test ratings", "baseline RMSE", "ensemble RMSE", "change"),
        _rmse_by_knowledge(squared, user_counts > 0),
        [*by_count, plots.calibration(predicted, test.ratings)],
    )


def _rmse_by_knowledge(squared: Mapping[str, Float64], known: Bool) -> list[list[str]]:
    """RMSE of the baseline and the ensemble on known, unknown and all users.

    Args:
        squared: By model and for the ensemble, the squared error of each test rating (float64, n).
        known: Whether the rating's user has training ratings (bool, n).
    """
    rows = []
    for name, part in (("known", known), ("unknown", ~known), ("all", known | ~known)):
        # If all users are known, or all are unknown, the row of all users has the same figures.
        if not part.any() or (name != "all" and part.all()):
            continue
        baseline, ensemble = (
            float(np.sqrt(squared[model][part].mean())) for model in (BASELINE, ENSEMBLE)
        )
        rows.append(
            [
                name,
                f"{part.sum():,}",
                f"{baseline:.4f}",
                f"{ensemble:.4f}",
                f"{ensemble / baseline - 1:+.2%}",
            ]
        )
    return rows
