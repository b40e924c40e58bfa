"""The metrics that `marquee evaluate --json` writes."""

from __future__ import annotations

import json

import pytest

from marquee_trainer.commands.evaluate import metrics_json
from marquee_trainer.training.results import TrainingResult


def test_the_json_contains_every_model_and_metric(small_trained: TrainingResult) -> None:
    """Rating predictors have errors, all models have rankings, and nothing is null or infinite."""
    models = json.loads(metrics_json(small_trained.evaluation))["models"]
    baselines = {"baseline", "popularity", "recent_popularity"}
    assert set(models) == {*baselines, "user_cf", "item_cf", "ease", "ensemble"}
    for name in ("user_cf", "item_cf", "ensemble"):
        assert {"train_mse", "test_mse", "test_rmse", "test_mae", "ndcg@10"} <= set(models[name])
        assert models[name]["test_rmse"] == pytest.approx(models[name]["test_mse"] ** 0.5)
    assert "test_mse" not in models["ease"]
    assert all(0 <= row["gini@10"] <= 1 for row in models.values())
    assert all(0 <= row["debiased_ndcg@10"] <= 1 for row in models.values())
