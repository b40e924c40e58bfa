"""An interrupted training resumes from the last finished model with the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marquee_core.release.store import ReleaseStore
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split, random_split
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.model import Model, Training
from marquee_trainer.models.neural.deep_mf import DeepMF
from marquee_trainer.training.checkpoints import Checkpoints
from marquee_trainer.training.config import BaselineConfig
from marquee_trainer.training.preparation import interactions_of, release_data

# Generous, since importing TensorFlow takes long on a loaded machine.
TIMEOUT_S = 300.0
# Keeps every fit, and kills the process before the fit with the given number, counted from 0.
TRAIN = """
import os, signal, sys
from marquee_trainer.commands import cli
from marquee_trainer.training import checkpoints
keep = checkpoints.Checkpoints.__init__
checkpoints.Checkpoints.__init__ = lambda *a, **k: keep(*a, **{**k, "min_seconds": 0.0})
fit, done = checkpoints.Checkpoints.fit, []
def counted(self, stage, model, training):
    if len(done) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(stage)
    return fit(self, stage, model, training)
checkpoints.Checkpoints.fit = counted
cli.train(sys.argv[2:], prog_name="marquee train")
"""


@pytest.fixture(scope="module")
def training(small_dataset: RatingsDataset) -> Training:
    """A fit with validation ratings."""
    split: Split = random_split(small_dataset.file_order, 0.2, 0)
    data = release_data(small_dataset, split.train, BaselineConfig(), 30.0)
    return Training(data, interactions_of(small_dataset, split.test))


@pytest.mark.parametrize("model_type", [EASE, IALS, DeepMF])
def test_a_restored_model_equals_the_fitted_one(
    model_type: type[Model], training: Training, tmp_path: Path
) -> None:
    """A restored model has the same scores, refits and saved files."""
    fitted, restored = model_type(), model_type()
    notes: list[str] = []
    if fitted.max_epochs:
        fitted, restored = (each.with_epochs(3) for each in (fitted, restored))  # type: ignore[attr-defined]
    folder = tmp_path / "checkpoints"
    fit, _ = Checkpoints(folder, False, 0.0).fit("fit", fitted, training)
    again, _ = Checkpoints(folder, True, 0.0, notes.append).fit("fit", restored, training)
    assert again == fit
    assert len(notes) == 1
    profiles = training.data.matrix.profiles(np.arange(20, dtype=np.int32))
    visitor = training.data.matrix.profile(
        -1, np.array([3, 5], np.int32), np.array([5.0, 1.0], np.float32)
    )
    for each in (profiles, visitor):
        np.testing.assert_array_equal(restored.scorer.score(each), fitted.scorer.score(each))
    assert restored.parameters == fitted.parameters
    assert restored.for_refit().state == fitted.for_refit().state
    restored.save(tmp_path / "again")
    assert any((tmp_path / "again").iterdir())


def test_only_a_matching_fit_is_restored(training: Training, tmp_path: Path) -> None:
    """Other ratings, seeds, hyperparameters and purposes do not match."""
    folder = tmp_path / "checkpoints"
    notes: list[str] = []
    Checkpoints(folder, False, 0.0).fit("fit", EASE(), training)
    resumed = Checkpoints(folder, True, 1e9, notes.append)
    resumed.fit("fit", EASE(), replace(training, seed=1))
    resumed.fit("fit", EASE(), replace(training, validation=None))
    resumed.fit("refit", EASE(), training)
    resumed.fit("fit", EASE(replace(EASE().config, regularisation=77.0)), training)
    assert not notes
    resumed.fit("fit", EASE(), training)
    assert len(notes) == 1
    (folder / "fit-ease" / "state.json").write_text("{")
    resumed.fit("fit", EASE(), training)
    assert "damaged" in notes[1]
    # Quick fits are not kept, and a run that does not resume removes existing checkpoints.
    fresh = Checkpoints(folder, False, 1e9)
    fresh.fit("fit", EASE(), training)
    assert not folder.exists()


def run(kill_before: int, store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Train two models, and kill the process before one of their six fits; -1 for none."""
    arguments = [
        *("--data=sample:users=150,items=100,ratings=6000", "--models=ease,ials"),
        *(f"--store={store}", "--no-promote", "--no-gate"),
    ]
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(kill_before), *arguments, *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_release(tmp_path: Path) -> None:
    """After a kill before the last fit, every file of the release is bit-identical."""
    assert run(-1, tmp_path / "whole").returncode == 0
    killed = run(5, tmp_path / "killed")
    assert killed.returncode == -signal.SIGKILL
    assert ReleaseStore(str(tmp_path / "killed")).ids() == []
    resumed = run(-1, tmp_path / "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count("resumed: ") == 5
    whole, again = (
        ReleaseStore(str(tmp_path / name)).manifests()[0] for name in ("whole", "killed")
    )
    assert again.files == whole.files
    assert again.evaluation == whole.evaluation
    assert not (tmp_path / "killed-training").exists()
