"""Saves fitted models to a folder, so that an interrupted training resumes after the last one.

A checkpoint is identified by everything that the fit depends on: the model and its hyperparameters,
the parameters that it starts from, the ratings, the seed and the library versions. A resumed
training therefore has the same result as an uninterrupted one, and a fit on other ratings is never
restored.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.errors import ArtifactError
from marquee_core.feedback.events import Mark
from marquee_trainer.models.model import Epoch, Fit, Model, Parameters, Training
from marquee_trainer.training.versions import library_versions

_STATE, _MARK = "state.json", "mark.json"
_LEARNED = "learned"
_PARTIAL = ".partial"
# Thresholds in stars whose conversions identify the scale of the ratings.
_PROBES = (1.0, 2.5, 4.0)


class Checkpoints:
    """Fits models, or restores them from an earlier run that was interrupted."""

    def __init__(
        self,
        folder: Path,
        resume: bool,
        min_seconds: float = 5.0,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Creates the checkpoints of a run.

        Args:
            folder: The folder. Unless `resume` is set, checkpoints of an earlier run are removed.
            resume: Whether to restore fits of an earlier run.
            min_seconds: Shorter fits are not saved, because repeating them is as fast.
            report: Called with a sentence for each fit that is restored.
        """
        self._folder = folder
        self._min_seconds = min_seconds
        self._report = report
        if not resume:
            self.remove()

    def remove(self) -> None:
        """Removes all checkpoints; called once a release is published."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def mark(self) -> Mark | None:
        """The feedback log position up to which the earlier run had read; None if unknown."""
        try:
            return Mark(**json.loads((self._folder / _MARK).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @mark.setter
    def mark(self, mark: Mark) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / _MARK).write_text(json.dumps(asdict(mark)))

    def fit(self, stage: str, model: Model, training: Training) -> tuple[Fit, float]:
        """Fits a model, or restores the fit of an earlier run.

        Args:
            stage: The stage of the fit; part of the checkpoint's name.
            model: The unfitted model, which this fits.
            training: The input of the fit.

        Returns:
            The course of the fit, and its original duration in seconds.

        Raises:
            OSError: The checkpoint cannot be written.
        """
        if model.state is None:
            return fit_or_resume(None, stage, model, training)
        folder = self._folder / checkpoint_name(stage, model)
        key = _key(stage, model, training)
        found = self._restore(folder, key, model, training)
        if found is not None:
            self._report(f"resumed: {stage} {model.name}, which took {found[1]:,.0f} s")
            return found
        fit, seconds = fit_or_resume(None, stage, model, training)
        if seconds >= self._min_seconds:
            self._save(folder, key, model, fit, seconds)
        return fit, seconds

    def _save(self, folder: Path, key: str, model: Model, fit: Fit, seconds: float) -> None:
        partial = folder.with_name(folder.name + _PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model.save(partial / "model")
        if model.learned:
            (partial / _LEARNED).mkdir()
        for name, values in model.learned.items():
            np.save(partial / _LEARNED / f"{name}.npy", values)
        state = {
            "key": key,
            "state": model.state,
            "learned": sorted(model.learned),
            "seconds": seconds,
            "epochs": fit.epochs,
            "curve": [[epoch.train_mse, epoch.validation_mse] for epoch in fit.curve],
        }
        (partial / _STATE).write_text(json.dumps(state))
        shutil.rmtree(folder, ignore_errors=True)
        # A checkpoint is complete or absent: a killed process leaves only the partial folder, which
        # is ignored.
        partial.rename(folder)

    def _restore(
        self, folder: Path, key: str, model: Model, training: Training
    ) -> tuple[Fit, float] | None:
        try:
            found = json.loads((folder / _STATE).read_text())
            if found["key"] != key:
                return None
            curve = tuple(Epoch(*each) for each in found["curve"])
            learned = _load_arrays(folder / _LEARNED, found["learned"])
            model.restore(folder / "model", training.data, found["state"])
            model.learned = learned
            return Fit(curve, found["epochs"]), found["seconds"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ArtifactError) as error:
            self._report(f"the checkpoint {folder.name} is damaged and is ignored: {error}")
            return None


def _load_arrays(folder: Path, names: Sequence[str]) -> Parameters:
    """Maps arrays of a checkpoint into memory.

    Raises:
        OSError: A file is missing.
        ValueError: A file is damaged.
    """
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def checkpoint_name(stage: str, model: Model) -> str:
    """The name of a checkpoint's folder."""
    return f"{stage} {model.name}".replace(" ", "-")


def fit_or_resume(
    checkpoints: Checkpoints | None, stage: str, model: Model, training: Training
) -> tuple[Fit, float]:
    """Fits a model, with checkpoints if given; see `Checkpoints.fit`."""
    if checkpoints is not None:
        return checkpoints.fit(stage, model, training)
    start = time.perf_counter()
    return model.fit(training), time.perf_counter() - start


def _key(stage: str, model: Model, training: Training) -> str:
    """A digest of everything that a fit depends on, in hexadecimal."""
    data, digest = training.data, hashlib.sha256()
    convert = training.from_stars or float
    facts: dict[str, Any] = {
        "stage": stage,
        "model": model.name,
        "class": type(model).__qualname__,
        "state": model.state,
        "seed": training.seed,
        "relevant_stars": training.relevant_stars,
        "stars": [convert(stars) for stars in _PROBES],
        "has_thresholds": training.from_stars is not None,
        "item_count": data.matrix.item_count,
        "baseline": [data.baseline.mean, data.baseline.user_damping],
        "dislike_limit": repr(data.dislike_limit),
        "half_life": None if data.recency is None else data.recency.half_life_days,
        "libraries": library_versions(),
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    matrix, validation = data.matrix, training.validation
    arrays: list[NDArray[Any]] = [matrix.indptr, matrix.items, matrix.ratings, matrix.later_counts]
    arrays += [data.baseline.item_bias]
    if validation is not None:
        arrays += [validation.users, validation.items, validation.ratings]
    for name in sorted(model.start):
        digest.update(name.encode())
        arrays.append(model.start[name])
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
