"""Tables of metrics for the terminal."""

from __future__ import annotations

from marquee.cli.table import render
from marquee_trainer.studies.known_day import KnownDay
from marquee_trainer.training.evaluate import ENSEMBLE, Evaluation

_COLUMNS = (
    ("train_mse", "train MSE"),
    ("test_mse", "test MSE"),
    ("test_rmse", "test RMSE"),
    ("test_mae", "test MAE"),
    ("ndcg@10", "NDCG@10"),
    ("recall@20", "Recall@20"),
    ("coverage@10", "coverage@10"),
)
# The columns to drop first if the terminal is too narrow.
_DROPPABLE = ("coverage@10", "train MSE", "test MAE", "Recall@20", "test RMSE")


def metrics_table(evaluation: Evaluation) -> str:
    """Formats the metrics of every model, the baselines and the ensemble.

    Cells of metrics that do not apply are empty. Metrics that no model has, such as rating errors
    of implicit feedback, have no column.
    """
    by_model = evaluation.metrics
    columns = [
        (key, title)
        for key, title in _COLUMNS
        if any(key in metrics for metrics in by_model.values())
    ]
    rows = [
        [name, *(f"{metrics[key]:.4f}" if key in metrics else "" for key, _ in columns)]
        for name, metrics in by_model.items()
    ]
    headers = ["model", *(title for _, title in columns)]
    return render(headers, rows, "l" + "r" * len(columns), droppable=_DROPPABLE)


def known_day_table(known_day: KnownDay) -> str:
    """Formats the metrics of predictions that know the day of the rating."""
    columns = [(key, title) for key, title in _COLUMNS if key in known_day.metrics[ENSEMBLE]]
    rows = [
        [f"{name}, day known", *(f"{row[key]:.4f}" for key, _ in columns)]
        for name, row in known_day.metrics.items()
    ]
    headers = ["model", *(title for _, title in columns)]
    return render(headers, rows, "l" + "r" * len(columns), droppable=_DROPPABLE)
