"""A report of a small evaluation with every section."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import packaged_configuration, read_searches
from marquee_trainer.models.model import Epoch, Fit
from marquee_trainer.reporting.report import write_evaluation_report
from marquee_trainer.studies.cold_start import ColdStart
from marquee_trainer.studies.known_day import KnownDay
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import TrainingResult


@pytest.fixture(scope="session")
def report(
    small_dataset: RatingsDataset,
    small_split: Split,
    small_trained: TrainingResult,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The page, in a folder with its charts."""
    curve = (Epoch(1.0, 1.1), Epoch(0.9, 1.0), Epoch(0.8, 1.05))
    trained = replace(small_trained, fits={**small_trained.fits, "mf": Fit(curve, 2)})
    curves = dict.fromkeys(("user_cf", ENSEMBLE), (1.0, 0.9))
    retrained = {"user_cf": 0.8, ENSEMBLE: 0.75}
    row = {"test_mse": 0.5, "test_rmse": 0.7071, "test_mae": 0.6}
    file = packaged_configuration(80_000).path
    return write_evaluation_report(
        tmp_path_factory.mktemp("report"),
        small_dataset,
        small_split,
        trained,
        TrainingConfig(),
        ColdStart(12, (0, 10), curves, curves, 10, retrained),
        KnownDay({ENSEMBLE: row}, trained.evaluation.predictions[ENSEMBLE]),
        read_searches(file),
    )
