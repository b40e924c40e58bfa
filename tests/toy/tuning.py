"""Trials for tests of the search; at module level, so that they can be sent to another process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from marquee_core.errors import ArtifactError
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import random_split
from marquee_trainer.tuning.task import TuningTask

EPOCHS = 6


def error_of(parameters: Mapping[str, float], epoch: int) -> float:
    """Return the validation MSE of a trial after an epoch."""
    return abs(parameters["shrinkage"] - 30.0) + 1.0 / epoch


@dataclass(frozen=True)
class ToyTask(TuningTask):
    """Trials of item CF that fit nothing, and are worse the farther their shrinkage is from 30.

    Attributes:
        folder: Has a file that records the process of each trial that begins.
        killed: The process kills itself after two epochs of this trial, counted from 1, `kills`
            times in total.
        kills: The number of times that `killed` kills its process.
        refused: This trial raises an error.
    """

    folder: Path = field(kw_only=True)
    killed: int = 0
    kills: int = 0
    refused: int = 0

    @classmethod
    def on(cls, folder: Path, *, killed: int = 0, kills: int = 0, refused: int = 0) -> ToyTask:
        """Make the task of a small sample."""
        dataset = generate_sample(SampleConfig(users=40, items=30, ratings=600), seed=5)
        task = TuningTask.of(dataset, random_split(dataset.file_order, 0.2, 0), 0, {})
        return cls(**vars(task), folder=folder, killed=killed, kills=kills, refused=refused)

    def fit(
        self, name: str, parameters: Mapping[str, float], on_error: Callable[[int, float], None]
    ) -> float:
        """Record the process and report the epochs."""
        key = repr(sorted(parameters.items()))
        # Only one trial runs at a time, where a test refers to its number.
        with (self.folder / "begun").open("a+") as stream:
            stream.write(f"{key}\t{os.getpid()}\n")
        begun = self.begun()
        number = len(dict.fromkeys(parameters for parameters, _ in begun))
        tries = [parameters for parameters, _ in begun].count(key)
        if number == self.refused:
            raise ArtifactError("the trial is refused")
        for epoch in range(1, EPOCHS + 1):
            on_error(epoch, error_of(parameters, epoch))
            if epoch == 2 and number == self.killed and tries <= self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
        return error_of(parameters, EPOCHS)

    def begun(self) -> list[tuple[str, str]]:
        """Return the hyperparameters and the process of each trial that has begun."""
        rows = (line.split("\t") for line in (self.folder / "begun").read_text().splitlines())
        return [(parameters, process) for parameters, process in rows]
