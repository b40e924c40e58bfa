"""The plots of the report; each function draws one."""

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

# The published write-up's train and test MSE, on a small MovieLens.
PUBLISHED = {"user_cf": (0.6882, 1.0906), "item_cf": (2.2444, 4.4829)}
_WIDTH = 9.0
_BINS = 10
_STEP_STARS = 0.25


def learning_curves(fits: Mapping[str, Fit]) -> Figure:
    """Train and validation MSE of each model that is trained by epochs."""
    curves = {name: fit for name, fit in fits.items() if len(fit.curve) > 1}
    rows = max(1, -(-len(curves) // 2))
    figure = Figure((_WIDTH, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    for axes, (name, fit) in zip(grid.flat, curves.items(), strict=False):
        epochs = np.arange(1, len(fit.curve) + 1)
        axes.plot(epochs, [epoch.train_mse for epoch in fit.curve], label="train")
        held = [epoch.validation_mse for epoch in fit.curve]
        if all(value is not None for value in held):
            axes.plot(epochs, held, label="validation")
            axes.axvline(fit.epochs, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=name, xlabel="epoch", ylabel="MSE")
        axes.legend()
    return figure


def mse_bars(metrics: Mapping[str, Mapping[str, float]]) -> Figure:
    """Train and test MSE of each model, with the write-up's published figures beside them."""
    names = [name for name, row in metrics.items() if "test_mse" in row]
    figure = Figure((_WIDTH, 0.42 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))[::-1]
    for offset, part in ((0.2, "train"), (-0.2, "test")):
        values = [metrics[name][f"{part}_mse"] for name in names]
        bars = axes.barh(places + offset, values, 0.38, label=part)
        axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=8)
    for name, (train, test) in PUBLISHED.items():
        if name in names:
            place = places[names.index(name)]
            axes.plot([train, test], [place + 0.2, place - 0.2], "kx", markersize=6)
    axes.plot([], [], "kx", label="published write-up")
    axes.set(yticks=places, yticklabels=names, xlabel="MSE")
    axes.legend(loc="lower right")
    return figure


def error_by_count(
    squared: Mapping[str, Float64], user_counts: Int64, item_counts: Int64
) -> Figure:
    """Test MSE against how many training ratings the user and the item have.

    Args:
        squared: By model, the squared error of each test rating (float64, n).
        user_counts: Training ratings of each one's user (int64, n).
        item_counts: And of its item (int64, n).
    """
    figure = Figure((_WIDTH, 3.4), layout="constrained")
    for axes, counts, what in zip(
        figure.subplots(1, 2), (user_counts, item_counts), ("user", "item"), strict=True
    ):
        edges = np.unique(np.quantile(counts, np.linspace(0, 1, _BINS + 1)))
        bins = np.clip(np.searchsorted(edges, counts, "right") - 1, 0, max(0, len(edges) - 2))
        sizes = np.maximum(np.bincount(bins), 1)
        centres = np.bincount(bins, counts) / sizes
        for name, errors in squared.items():
            axes.plot(centres, np.bincount(bins, errors) / sizes, marker=".", label=name)
        axes.set(xlabel=f"training ratings of the {what}", ylabel="test MSE", xscale="symlog")
    axes.legend(fontsize=7)
    return figure


def calibration(predicted: Float32, ratings: Float32) -> Figure:
    """The mean rating that was given, against the stars that the ensemble predicted."""
    bins = np.round(predicted / _STEP_STARS).astype(np.int64)
    used, places = np.unique(bins, return_inverse=True)
    sizes = np.bincount(places)
    figure = Figure((_WIDTH / 2, 3.6), layout="constrained")
    axes = figure.subplots()
    low, high = float(ratings.min()), float(ratings.max())
    axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
    axes.scatter(
        used * _STEP_STARS, np.bincount(places, ratings) / sizes, s=4 + 120 * sizes / sizes.max()
    )
    axes.set(xlabel="predicted stars", ylabel="mean rating given")
    return figure


def blend_weights(blends: BlendPair) -> Figure:
    """The weights of both blends."""
    pairs = (("stars", blends.rating), ("order", blends.ranking))
    most = max(len(blend.weights) for _, blend in pairs)
    figure = Figure((_WIDTH, 0.32 * most + 1.2), layout="constrained")
    for axes, (what, blend) in zip(figure.subplots(1, 2), pairs, strict=True):
        ordered = sorted(blend.weights.items(), key=lambda row: abs(row[1]))
        axes.barh([name for name, _ in ordered], [weight for _, weight in ordered])
        axes.set(title=f"weights for {what}")
    return figure


def ranking_bars(intervals: Mapping[str, Interval]) -> Figure:
    """NDCG@10 of each model with its bootstrap interval."""
    ordered = sorted(intervals.items(), key=lambda row: row[1].mean)
    figure = Figure((_WIDTH, 0.32 * len(ordered) + 1.0), layout="constrained")
    axes = figure.subplots()
    means = [interval.mean for _, interval in ordered]
    spread = [
        [interval.mean - interval.low for _, interval in ordered],
        [interval.high - interval.mean for _, interval in ordered],
    ]
    axes.barh([name for name, _ in ordered], means, xerr=spread, capsize=3)
    axes.set(xlabel="NDCG@10, with 95 % bootstrap interval over users")
    return figure


def cold_start_curves(found: ColdStart, names: Sequence[str]) -> Figure:
    """Test MSE and NDCG@10 against how many ratings a new user gives."""
    figure = Figure((_WIDTH, 3.8), layout="constrained")
    panels = ((found.mse, "test MSE"), (found.ndcg, "NDCG@10"))
    for axes, (curves, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in names:
            if name in curves:
                axes.plot(found.given, curves[name], marker=".", label=name)
        axes.set(xlabel="given ratings", ylabel=label)
    axes.legend(fontsize=7)
    return figure
