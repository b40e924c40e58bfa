"""Known day: how much predictions improve if the day of the rating is known."""

from __future__ import annotations

from collections.abc import Mapping

from marquee_trainer.reporting.page import Section
from marquee_trainer.studies.known_day import KnownDay


def known_day_section(known_day: KnownDay, metrics: Mapping[str, Mapping[str, float]]) -> Section:
    """The test errors with and without the day of the rating.

    Args:
        known_day: The metrics of predictions made with the day of the rating.
        metrics: By model, its metrics without the day.
    """
    rows = [
        [
            name,
            *(f"{row[key]:.4f}" for key in ("test_mse", "test_rmse")),
            # The model without the day may not have been trained.
            f"{metrics[name]['test_mse']:.4f}" if name in metrics else "",
            f"{row['test_mse'] / metrics[name]['test_mse'] - 1:+.2%}" if name in metrics else "",
        ]
        for name, row in known_day.metrics.items()
    ]
    return Section(
        "If the day of the rating were known",
        "Users rate higher on some days than on others, and the ratings of an item drift. Here "
        "Bayesian MF also has an effect for each day of a user and each month of an item, learned "
        "from other ratings of that period. These are not available to a forecast, so this model "
        "is not served.",
        ("model", "test MSE", "test RMSE", "test MSE, day unknown", "change"),
        rows,
    )
