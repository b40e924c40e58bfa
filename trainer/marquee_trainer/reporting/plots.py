"""The plots of the report; each function draws one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from marquee_core.arrays import Float32, Float64, Int64
from marquee_core.release.ensemble import BlendPair
from marquee_trainer.metrics.bootstrap import Interval
from marquee_trainer.models.model import Fit
from marquee_trainer.studies.cold_start import ColdStart

mpl.use("Agg")

_WIDTH = 9.0  # of a full-width figure, in inches
_BINS = 10  # quantile bins of the number of training ratings
_STEP_STARS = 0.25  # width of the bins of the calibration plot, in stars


def learning_curves(fits: Mapping[str, Fit]) -> Figure:
    """Training and validation MSE by epoch, for each model that is trained in epochs.

    A dotted line marks the number of epochs that early stopping chose.
    """
    curves = {name: fit for name, fit in fits.items() if len(fit.curve) > 1}
    rows = max(1, -(-len(curves) // 2))
    figure = Figure((_WIDTH, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    for axes, (name, fit) in zip(grid.flat, curves.items(), strict=False):
        epochs = np.arange(1, len(fit.curve) + 1)
        axes.plot(epochs, [epoch.train_mse for epoch in fit.curve], label="train")
        validation = [epoch.validation_mse for epoch in fit.curve]
        if all(mse is not None for mse in validation):
            axes.plot(epochs, validation, label="validation")
            axes.axvline(fit.epochs, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=name, xlabel="epoch", ylabel="MSE")
        axes.legend()
    return figure


def mse_bars(metrics: Mapping[str, Mapping[str, float]]) -> Figure:
    """Training and test MSE of each rating predictor."""
    names = [name for name, row in metrics.items() if "test_mse" in row]
    figure = Figure((_WIDTH, 0.42 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))[::-1]
    for offset, part in ((0.2, "train"), (-0.2, "test")):
        values = [metrics[name][f"{part}_mse"] for name in names]
        bars = axes.barh(places + offset, values, 0.38, label=part)
        axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=8)
    axes.set(yticks=places, yticklabels=names, xlabel="MSE")
    axes.legend(loc="lower right")
    return figure


def error_by_count(
    squared: Mapping[str, Float64], user_counts: Int64, item_counts: Int64
) -> Figure:
    """Test MSE by the number of training ratings of the user and of the item.

    The numbers are binned by quantiles.

    Args:
        squared: By model, the squared error of each test rating, in squared stars (float64, n).
        user_counts: Number of training ratings of each test rating's user (int64, n).
        item_counts: Number of training ratings of each test rating's item (int64, n).
    """
    figure = Figure((_WIDTH, 3.4), layout="constrained")
    for axes, counts, owner in zip(
        figure.subplots(1, 2), (user_counts, item_counts), ("user", "item"), strict=True
    ):
        edges = np.unique(np.quantile(counts, np.linspace(0, 1, _BINS + 1)))
        bins = np.clip(np.searchsorted(edges, counts, "right") - 1, 0, max(0, len(edges) - 2))
        sizes = np.maximum(np.bincount(bins), 1)
        centres = np.bincount(bins, counts) / sizes
        for name, errors in squared.items():
            axes.plot(centres, np.bincount(bins, errors) / sizes, marker=".", label=name)
        axes.set(xlabel=f"training ratings of the {owner}", ylabel="test MSE", xscale="symlog")
    axes.legend(fontsize=7)
    return figure


def calibration(predicted: Float32, ratings: Float32) -> Figure:
    """The mean rating that users gave, by the stars that the ensemble predicted.

    Args:
        predicted: The clipped predictions, in stars (float32, n).
        ratings: The test ratings, in stars (float32, n).
    """
    bins = np.round(predicted / _STEP_STARS).astype(np.int64)
    distinct, places = np.unique(bins, return_inverse=True)
    sizes = np.bincount(places)
    figure = Figure((_WIDTH / 2, 3.6), layout="constrained")
    axes = figure.subplots()
    low, high = float(ratings.min()), float(ratings.max())
    axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
    axes.scatter(
        distinct * _STEP_STARS,
        np.bincount(places, ratings) / sizes,
        s=4 + 120 * sizes / sizes.max(),
    )
    axes.set(xlabel="predicted stars", ylabel="mean rating given")
    return figure


def blend_weights(blends: BlendPair) -> Figure:
    """The weights of the rating blend and of the ranking blend."""
    pairs = (("rating blend", blends.rating), ("ranking blend", blends.ranking))
    max_bars = max(len(blend.weights) for _, blend in pairs)
    figure = Figure((_WIDTH, 0.32 * max_bars + 1.2), layout="constrained")
    for axes, (title, blend) in zip(figure.subplots(1, 2), pairs, strict=True):
        ordered = sorted(blend.weights.items(), key=lambda row: abs(row[1]))
        axes.barh([name for name, _ in ordered], [weight for _, weight in ordered])
        axes.set(title=f"weights of the {title}")
    return figure


def ranking_bars(intervals: Mapping[str, Interval]) -> Figure:
    """NDCG@10 of each model, with its bootstrap interval over users."""
    ordered = sorted(intervals.items(), key=lambda row: row[1].mean)
    figure = Figure((_WIDTH, 0.32 * len(ordered) + 1.0), layout="constrained")
    axes = figure.subplots()
    means = [interval.mean for _, interval in ordered]
    errors = [
        [interval.mean - interval.low for _, interval in ordered],
        [interval.high - interval.mean for _, interval in ordered],
    ]
    axes.barh([name for name, _ in ordered], means, xerr=errors, capsize=3)
    axes.set(xlabel="NDCG@10, with 95 % bootstrap interval over users")
    return figure


def cold_start_curves(study: ColdStart, names: Sequence[str]) -> Figure:
    """Test MSE and NDCG@10 by the number of ratings that a new user gives.

    Args:
        study: The cold-start evaluation.
        names: The models to draw. A model without a metric is left out of its plot.
    """
    figure = Figure((_WIDTH, 3.8), layout="constrained")
    panels = ((study.mse, "test MSE"), (study.ndcg, "NDCG@10"))
    for axes, (curves, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in names:
            if name in curves:
                axes.plot(study.given, curves[name], marker=".", label=name)
        axes.set(xlabel="given ratings", ylabel=label)
    axes.legend(fontsize=7)
    return figure
