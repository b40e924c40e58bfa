"""Keeps experiments in the release store, beside the production pointer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from marquee_core.errors import ArtifactError, reason_of
from marquee_core.experiments.experiment import (
    CONTROL,
    LIKES,
    Arm,
    Experiment,
    ExperimentError,
    new_secret,
)
from marquee_core.json_text import parse_json
from marquee_core.release.store import ReleaseStore

_FILE = "experiments"
_FORMAT = 1
MAX_KEPT = 50
"""Most experiments that are kept; the one that ended first is dropped."""

STOPPED = "stopped"


class ExperimentStore:
    """Starts, ends and lists experiments; at most one of them runs."""

    def __init__(self, store: ReleaseStore) -> None:
        """Takes the release store."""
        self._store = store

    def all(self) -> list[Experiment]:
        """All experiments that are kept, the most recently started first.

        Raises:
            ArtifactError: The file that holds them is damaged.
        """
        try:
            content = self._store.storage.read(_FILE)
        except FileNotFoundError:
            return []
        return _parse(content)

    def find(self, name: str = "") -> Experiment:
        """The experiment of a name; for "" the one that runs, or else the one started last.

        Raises:
            ExperimentError: There is none.
            ArtifactError: The file that holds them is damaged.
        """
        experiments = self.all()
        if not experiments:
            raise ExperimentError("no experiment has been started")
        if not name:
            return running(experiments) or experiments[0]
        for experiment in experiments:
            if experiment.name == name:
                return experiment
        names = ", ".join(experiment.name for experiment in experiments)
        raise ExperimentError(f"there is no experiment {name!r}; there are {names}")

    def create(
        self,
        name: str,
        arms: Sequence[Arm],
        metric: str = LIKES,
        alpha: float = 0.05,
        log_position: int = 0,
    ) -> Experiment:
        """Starts a new experiment, and returns it.

        Args:
            name: Its name, not used before.
            arms: Its arms, among them the control.
            metric: What the arms are compared by, one of `METRICS`.
            alpha: The probability of a wrong verdict if the arms do not differ.
            log_position: The position in the feedback log; 0 if it is not known.

        Raises:
            ExperimentError: It is not valid, or `start` refuses it.
            ArtifactError: The file of experiments is damaged.
        """
        control = next((arm for arm in arms if arm.name == CONTROL), None)
        if control is None:
            raise ExperimentError(f"one arm must be named {CONTROL!r}")
        try:
            data = self._store.manifest(control.release_id).data
        except ArtifactError as error:
            raise ExperimentError(f"arm {CONTROL}: {error}") from error
        experiment = Experiment(
            name,
            tuple(arms),
            metric,
            alpha,
            data.rating_min,
            data.rating_max,
            new_secret(),
            datetime.now(UTC).isoformat(timespec="seconds"),
            log_position,
        )
        self.start(experiment)
        return experiment

    def start(self, experiment: Experiment) -> None:
        """Adds a running experiment.

        Raises:
            ExperimentError: Another one runs, its name was used before, or a release is missing or
                lacks a model that its arm weights.
            ArtifactError: The file that holds them is damaged.
        """
        for arm in experiment.arms:
            try:
                manifest = self._store.manifest(arm.release_id)
            except ArtifactError as error:
                raise ExperimentError(f"arm {arm.name}: {error}") from error
            known = {model.name for model in manifest.models}
            missing = [name for name in arm.ranking_weights if name not in known]
            if missing:
                raise ExperimentError(
                    f"arm {arm.name}: release {arm.release_id} has no model "
                    f"{', '.join(missing)}; it has {', '.join(sorted(known))}"
                )

        def add(experiments: list[Experiment]) -> list[Experiment]:
            current = running(experiments)
            if current is not None:
                raise ExperimentError(f"experiment {current.name} is running; stop it first")
            if any(experiment.experiment_id == other.experiment_id for other in experiments):
                raise ExperimentError(
                    f"there was an experiment {experiment.name!r} before; users would be assigned "
                    "as they were then, so choose another name"
                )
            return [experiment, *experiments]

        self._update(add)

    def end(self, name: str, outcome: str) -> Experiment:
        """Ends an experiment, and returns it.

        Args:
            name: The experiment.
            outcome: How it was ended: `stopped`, or `promoted ARM`.

        Raises:
            ExperimentError: It does not run.
            ArtifactError: The file that holds them is damaged.
        """
        ended: list[Experiment] = []

        def end(experiments: list[Experiment]) -> list[Experiment]:
            current = running(experiments)
            if current is None or current.name != name:
                raise ExperimentError(f"experiment {name!r} is not running")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            ended[:] = [replace(current, ended_at=now, outcome=outcome)]
            return [*ended, *(other for other in experiments if other is not current)]

        self._update(end)
        return ended[0]

    def _update(self, change: Callable[[list[Experiment]], list[Experiment]]) -> None:
        """Changes the experiments in one atomic step."""
        self._store.storage.update(_FILE, lambda content: _format(change(_parse(content))))


def running(experiments: Sequence[Experiment]) -> Experiment | None:
    """The experiment that runs; None if none does."""
    return next((experiment for experiment in experiments if experiment.is_running), None)


def _parse(content: bytes | None) -> list[Experiment]:
    if content is None:
        return []
    try:
        raw = parse_json(content, f"file {_FILE!r}")
        if raw["format"] != _FORMAT:
            raise ValueError(f"format {raw['format']} is not {_FORMAT}")
        experiments = [Experiment.from_json(each) for each in raw["experiments"]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(f"damaged file {_FILE!r}: {reason_of(error)}") from error
    if sum(experiment.is_running for experiment in experiments) > 1:
        raise ArtifactError(f"damaged file {_FILE!r}: more than one experiment is running")
    return experiments


def _format(experiments: Sequence[Experiment]) -> bytes:
    content = {
        "format": _FORMAT,
        "experiments": [experiment.to_json() for experiment in experiments[:MAX_KEPT]],
    }
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
