"""The charts of the report; each function draws one chart, or one per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from marquee_core.arrays import Float32, Float64, Int64
from marquee_core.release.ensemble import BASELINE, BlendPair
from marquee_trainer.metrics.bootstrap import Interval
from marquee_trainer.models.model import Fit
from marquee_trainer.reporting.charts import (
    BACKGROUND,
    COLOURS,
    Chart,
    Series,
    bars,
    bubbles,
    curves,
)
from marquee_trainer.studies.new_users import NewUsersResult
from marquee_trainer.training.evaluate import ENSEMBLE

_BINS = 10  # quantile bins of the number of training ratings
_CALIBRATION_BINS = 20  # equal parts of the range of predicted stars
_MSE = "MSE (stars²)"


def learning_curves(fits: Mapping[str, Fit]) -> list[Chart]:
    """Training and validation MSE by epoch, one chart for each model that is trained in epochs.

    A dotted line marks the number of epochs that early stopping chose.
    """
    charts = []
    for name, fit in fits.items():
        if len(fit.curve) < 2:
            continue
        train = [(position + 1.0, epoch.train_mse) for position, epoch in enumerate(fit.curve)]
        validation = [
            (position + 1.0, epoch.validation_mse)
            for position, epoch in enumerate(fit.curve)
            if epoch.validation_mse is not None
        ]
        series = {"training": Series(train, 2)}
        if validation:
            series["validation"] = Series(validation, 1)
        mark = (float(fit.epochs), "the chosen number of epochs") if validation else None
        charts.append(
            curves(
                f"learning-{name}", f"{name}: error by epoch", ("epoch", _MSE), series, mark=mark
            )
        )
    return charts


def mse_bars(metrics: Mapping[str, Mapping[str, float]]) -> Chart:
    """Training and test MSE of each rating predictor, the best first."""
    rows = {
        name: (row["test_mse"], row["train_mse"])
        for name, row in sorted(metrics.items(), key=lambda item: item[1].get("test_mse", 0.0))
        if "test_mse" in row
    }
    return bars("mse", "Error of each rating predictor", _MSE, rows, ("test", "training"))


def error_by_count(
    squared: Mapping[str, Float64], user_counts: Int64, item_counts: Int64
) -> list[Chart]:
    """Test MSE by the number of training ratings of the user, and by that of the item.

    The numbers are binned by quantiles. The ensemble, the baseline and the best models have
    distinct colours; the others are in the background.

    Args:
        squared: By model, the squared error of each test rating, in squared stars (float64, n).
        user_counts: Number of training ratings of each test rating's user (int64, n).
        item_counts: Number of training ratings of each test rating's item (int64, n).
    """
    colours = _colours({name: float(errors.mean()) for name, errors in squared.items()})
    charts = []
    for counts, owner in ((user_counts, "user"), (item_counts, "item")):
        edges = np.unique(np.quantile(counts, np.linspace(0, 1, _BINS + 1)))
        bins = np.clip(np.searchsorted(edges, counts, "right") - 1, 0, max(0, len(edges) - 2))
        sizes = np.bincount(bins)
        filled = sizes > 0
        centres = (np.bincount(bins, counts)[filled] / sizes[filled]).tolist()
        series = {}
        for name in colours:
            means = (np.bincount(bins, squared[name])[filled] / sizes[filled]).tolist()
            series[name] = Series(list(zip(centres, means, strict=True)), colours[name])
        charts.append(
            curves(
                f"error-by-{owner}",
                f"Error by the number of training ratings of the {owner}",
                (f"training ratings of the {owner}", f"test {_MSE}"),
                series,
                log_x=True,
            )
        )
    return charts


def calibration(predicted: Float32, ratings: Float32) -> Chart:
    """The mean of the true ratings by the stars that the ensemble predicted.

    Args:
        predicted: The clipped predictions, in stars (float32, n).
        ratings: The test ratings, in stars (float32, n).
    """
    low, high = float(predicted.min()), float(predicted.max())
    width = (high - low) / _CALIBRATION_BINS or 1.0
    bins = np.minimum((predicted - low) / width, _CALIBRATION_BINS - 1).astype(np.int64)
    _, positions = np.unique(bins, return_inverse=True)
    sizes = np.bincount(positions)
    means = (np.bincount(positions, side) / sizes for side in (predicted, ratings))
    points = [
        (x, y, count)
        for x, y, count in zip(*(mean.tolist() for mean in means), sizes.tolist(), strict=True)
    ]
    return bubbles(
        "calibration",
        "Calibration of the ensemble",
        ("predicted stars", "mean rating (stars)"),
        points,
        "test ratings",
    )


def blend_weights(blends: BlendPair) -> list[Chart]:
    """The weights of the rating blend and of the ranking blend, the largest first."""
    charts = []
    for kind, blend in (("rating", blends.rating), ("ranking", blends.ranking)):
        ordered = sorted(blend.weights.items(), key=lambda row: -abs(row[1]))
        if ordered:
            rows = {name: (weight,) for name, weight in ordered}
            title = f"Weights of the {kind} blend"
            charts.append(bars(f"weights-{kind}", title, "weight (per unit of score)", rows))
    return charts


def ranking_bars(intervals: Mapping[str, Interval]) -> Chart:
    """NDCG@10 of each model, with its bootstrap interval over users, the best first."""
    ordered = sorted(intervals.items(), key=lambda row: -row[1].mean)
    return bars(
        "ranking",
        "Ranking quality of each model",
        "NDCG@10 (0 to 1), with 95 % interval",
        {name: (interval.mean,) for name, interval in ordered},
        intervals=dict(ordered),
    )


def new_users_curves(study: NewUsersResult, names: Sequence[str]) -> list[Chart]:
    """Test MSE and NDCG@10 by the number of ratings that a new user gives.

    Args:
        study: The evaluation of new users.
        names: The models to draw. A model that lacks a metric is omitted from its plot.
    """
    charts = []
    panels = (
        ("mse", study.mse, "Error for new users", f"test {_MSE}", 1),
        ("ndcg", study.ndcg, "Ranking quality for new users", "NDCG@10 (0 to 1)", -1),
    )
    for key, by_model, title, unit, sign in panels:
        last = {name: sign * by_model[name][-1] for name in names if name in by_model}
        if not last:
            continue
        colours = _colours(last)
        series = {
            name: Series(
                list(zip(map(float, study.given), by_model[name], strict=True)), colours[name]
            )
            for name in colours
        }
        axes = ("ratings that the user gave", unit)
        charts.append(curves(f"cold-start-{key}", title, axes, series))
    return charts


def _colours(losses: Mapping[str, float]) -> dict[str, int]:
    """Assigns colours to the ensemble, the baseline and the best models; others get the background.

    Args:
        losses: By model, a number that is lower for a better model.

    Returns:
        The numbers of the colours, in the order of the legend.
    """
    ordered = sorted(losses, key=lambda name: (name not in (ENSEMBLE, BASELINE), losses[name]))
    return {
        name: position + 1 if position < COLOURS - 1 else BACKGROUND
        for position, name in enumerate(ordered)
    }
