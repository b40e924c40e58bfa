"""Predicted ratings: the error of each rating predictor, and the gain of the ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from marquee_core.arrays import Float64, Int32
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.reporting import plots
from marquee_trainer.reporting.page import Section
from marquee_trainer.reporting.significance import ablation, rating_comparisons
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.results import TrainingResult

_METRICS = ("train_mse", "test_mse", "test_rmse", "test_mae")


def rating_section(
    metrics: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float]
) -> Section:
    """Training and test errors of each rating predictor, and the time it took to fit.

    Args:
        metrics: By model, its metrics by name; rankers, which have no `test_mse`, are left out.
        seconds: By model, the time of the fit on all training ratings, in seconds.
    """
    text = ""
    if {UserCF.name, ItemCF.name} <= set(seconds):
        text = (
            "The time to find neighbours of items grows with the squared numbers of ratings per "
            "user, and that of users with those per item, so which is faster depends on the data. "
            f"Here it took {seconds[ItemCF.name]:.1f} s for items and {seconds[UserCF.name]:.1f} s "
            "for users."
        )
    return Section(
        "Predicted ratings",
        text,
        ("model", "train MSE", "test MSE", "test RMSE", "test MAE", "fitted in"),
        [
            [
                name,
                *(f"{row[key]:.4f}" for key in _METRICS),
                f"{seconds[name]:.1f} s" if name in seconds else "",
            ]
            for name, row in sorted(metrics.items(), key=lambda row: row[1].get("test_mse", 0.0))
            if "test_mse" in row
        ],
        [plots.mse_bars(metrics)],
    )


def comparison_section(squared: Mapping[str, Float64], users: Int32, seed: int) -> Section:
    """The ensemble's test MSE compared with each model's, by a paired bootstrap.

    Args:
        squared: By model and for the ensemble, the squared error of each test rating, in squared
            stars (float64, n).
        users: The user of each test rating (int32, n).
        seed: Seed of the resamples.
    """
    signed: Callable[[float], str] = "{:+.4f}".format
    rows = [
        [
            name,
            signed(row.difference.mean),
            signed(row.difference.low),
            signed(row.difference.high),
            f"{row.p_value:.4f}",
        ]
        for name, row in rating_comparisons(squared, users, seed).items()
    ]
    return Section(
        "Is the ensemble better than each model?",
        "The ensemble's test MSE minus the model's, with its 95 % interval and p-value, by a "
        "paired bootstrap over users. A negative difference means that the ensemble is better.",
        ("model", "difference", "from", "to", "p"),
        rows,
    )


def ablation_section(
    dataset: RatingsDataset, split: Split, trained: TrainingResult, config: TrainingConfig
) -> Section:
    """An ablation of the rating blend: its test MSE without each model."""
    measured = ablation(
        trained.validation,
        trained.evaluation.predictions,
        dataset.ratings[trained.evaluation.rows(split)],
        dataset.scale,
        config.blend.rating_ridge,
    )
    rows = [
        [name, f"{mse:.4f}", f"{mse - measured.full:+.4f}"]
        for name, mse in sorted(measured.without.items(), key=lambda row: -row[1])
    ]
    blends = trained.ensemble.blends(sorted({model.backend for model in trained.models}))
    return Section(
        "What each model adds",
        "An ablation of the rating blend: the test MSE when the blend is learned without one of "
        f"the models. With all models it is {measured.full:.4f}.",
        ("without", "test MSE", "change"),
        rows,
        plots.blend_weights(blends),
    )
