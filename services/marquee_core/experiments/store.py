"""Stores experiments in the release store, in a file next to the production pointer.

If trusted keys are configured, one of them must have signed the file, and a file that is older than
one read before on this machine is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

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
"""The maximum number of experiments in the file; the oldest ones are dropped."""

STOPPED = "stopped"
_WHAT = f"the file {_FILE!r}"
_NO_KEY = (
    "trusted keys are configured, so servers accept only signed changes of experiments; sign the "
    "change with --signing-key"
)


class ExperimentStore:
    """Starts, ends and lists experiments. At most one of them is running."""

    def __init__(self, store: ReleaseStore) -> None:
        """Takes the release store."""
        self._store = store

    def all(self) -> list[Experiment]:
        """Returns all experiments in the store, the most recently started first.

        Raises:
            ArtifactError: The file of experiments is damaged; or trusted keys are configured, and
                the file is not signed by one of them, or is older than one read before.
        """
        try:
            content = self._store.storage.read(_FILE)
        except FileNotFoundError:
            return []
        file = self._read(content)
        if self._store.trusted is not None:
            self._store.replay_guard.check(_FILE, file.number)
        return file.experiments

    def find(self, name: str = "") -> Experiment:
        """Returns the experiment with a name.

        Args:
            name: The name; "" for the running experiment, or else the one started last.

        Raises:
            ExperimentError: There is no such experiment.
            ArtifactError: The file of experiments is damaged.
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
            name: The name, which must not have been used before.
            arms: The arms, of which one is the control.
            metric: The metric by which the arms are compared, one of `METRICS`.
            alpha: The probability of a wrong verdict if the arms do not differ.
            log_position: The current position in the feedback log; 0 if it is not known.

        Raises:
            ExperimentError: The experiment is not valid, or `start` rejects it.
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
            ExperimentError: Another experiment is running, the name was used before, or a release
                is missing or lacks a model that has a weight in its arm.
            ArtifactError: The file of experiments is damaged.
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
                    f"there was already an experiment {experiment.name!r}, and users would be "
                    "assigned to the same arms as then; choose another name"
                )
            return [experiment, *experiments]

        self._update(add)

    def end(self, name: str, outcome: str) -> Experiment:
        """Ends an experiment, and returns it.

        Args:
            name: The name of the experiment.
            outcome: How it ended: `stopped`, or `promoted ARM`.

        Raises:
            ExperimentError: The experiment is not running.
            ArtifactError: The file of experiments is damaged.
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
        """Changes the experiments atomically, and signs the file.

        Raises:
            ArtifactError: The file is damaged or not signed, or trusted keys are configured and the
                change would not be signed by one of them.
        """
        trusted, signer = self._store.trusted, self._store.signer
        if trusted is not None and signer is None:
            raise ArtifactError(_NO_KEY)

        def apply(content: bytes | None) -> bytes:
            before = _File(0, []) if content is None else self._read(content)
            kept = change(before.experiments)[:MAX_KEPT]
            # Based on the time, because the file may have been removed or replaced by an old one.
            number = max(before.number + 1, time.time_ns() // 1000)
            # Serialise and parse once, so that the signature covers the numbers as they are read.
            file = _File.from_json(_File(number, kept).to_json())
            if signer is not None:
                signature = signer.sign(file.signed_content()).decode().strip()
                file = replace(file, signature=signature)
            self._check(file)
            return file.to_json()

        self._store.storage.update(_FILE, apply)

    def _read(self, content: bytes) -> _File:
        """Parses the file, and checks its signature if trusted keys are configured."""
        file = _File.from_json(content)
        self._check(file)
        return file

    def _check(self, file: _File) -> None:
        trusted = self._store.trusted
        if trusted is not None:
            trusted.check(file.signed_content(), file.signature.encode(), _WHAT)


def running(experiments: Sequence[Experiment]) -> Experiment | None:
    """Returns the running experiment; None if there is none."""
    return next((experiment for experiment in experiments if experiment.is_running), None)


@dataclass(frozen=True)
class _File:
    """The content of the file.

    Attributes:
        number: The number of the last change: the time in microseconds since 1970, or the number
            of the previous change plus one if that is higher.
        experiments: The experiments, the most recently started first.
        signature: The key's id and the signature of the other fields; "" if it is not signed.
    """

    number: int
    experiments: list[Experiment]
    signature: str = ""

    def _content(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "number": self.number,
            "experiments": [experiment.to_json() for experiment in self.experiments],
        }

    def signed_content(self) -> bytes:
        """Returns the bytes to sign, whose prefix distinguishes them from other signed files."""
        text = json.dumps(self._content(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return f"{_FILE}\n{text}".encode()

    def to_json(self) -> bytes:
        """Returns the file as JSON, the inverse of `from_json`."""
        content = {**self._content(), "signature": self.signature}
        return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> _File:
        """Parses the result of `to_json`; number and signature may be missing.

        Raises:
            ArtifactError: The content is damaged.
        """
        try:
            raw = parse_json(content, f"file {_FILE!r}")
            if raw["format"] != _FORMAT:
                raise ValueError(f"format {raw['format']} is not {_FORMAT}")
            number, signature = raw.get("number", 0), raw.get("signature", "")
            if type(number) is not int or number < 0 or not isinstance(signature, str):
                raise TypeError("the number must be an integer, and the signature a string")
            experiments = [Experiment.from_json(each) for each in raw["experiments"]]
        except (AttributeError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise ArtifactError(f"damaged file {_FILE!r}: {reason_of(error)}") from error
        if sum(experiment.is_running for experiment in experiments) > 1:
            raise ArtifactError(f"damaged file {_FILE!r}: more than one experiment is running")
        return cls(number, experiments, signature)
