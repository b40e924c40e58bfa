"""Keeps experiments in the release store, beside the production pointer.

Where keys are trusted, one of them must have signed the file, and one that is older than one that
was read before on this machine is refused.
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
"""Most experiments that are kept; the one that ended first is dropped."""

STOPPED = "stopped"
_WHAT = f"the file {_FILE!r}"
_NO_KEY = (
    "trusted keys are set, so servers accept only signed changes of experiments; sign them with "
    "--signing-key"
)


class ExperimentStore:
    """Starts, ends and lists experiments; at most one of them runs."""

    def __init__(self, store: ReleaseStore) -> None:
        """Takes the release store."""
        self._store = store

    def all(self) -> list[Experiment]:
        """Returns all experiments that are kept, the most recently started first.

        Raises:
            ArtifactError: The file that holds them is damaged, or keys are trusted, and it is not
                signed by one of them, or older than one that was read before.
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
        """Returns the experiment of a name; for "" the one that runs, or else the one started last.

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
        """Changes the experiments in one atomic step, and signs them.

        Raises:
            ArtifactError: The file is damaged or not signed, or trusted keys are set and the change
                would not be signed by one of them.
        """
        trusted, signer = self._store.trusted, self._store.signer
        if trusted is not None and signer is None:
            raise ArtifactError(_NO_KEY)

        def apply(content: bytes | None) -> bytes:
            before = _File(0, []) if content is None else self._read(content)
            kept = change(before.experiments)[:MAX_KEPT]
            # By the time, because the file may have been removed or replaced by an earlier one.
            number = max(before.number + 1, time.time_ns() // 1000)
            # As it will be read, so that the signature is over the same numbers.
            file = _File.from_json(_File(number, kept).to_json())
            if signer is not None:
                signature = signer.sign(file.signed_content()).decode().strip()
                file = replace(file, signature=signature)
            self._check(file)
            return file.to_json()

        self._store.storage.update(_FILE, apply)

    def _read(self, content: bytes) -> _File:
        """Parses the file, and checks its signature where keys are trusted."""
        file = _File.from_json(content)
        self._check(file)
        return file

    def _check(self, file: _File) -> None:
        trusted = self._store.trusted
        if trusted is not None:
            trusted.check(file.signed_content(), file.signature.encode(), _WHAT)


def running(experiments: Sequence[Experiment]) -> Experiment | None:
    """Returns the experiment that runs; None if none does."""
    return next((experiment for experiment in experiments if experiment.is_running), None)


@dataclass(frozen=True)
class _File:
    """What the file holds.

    Attributes:
        number: The number of the change that made it: the time in microseconds since 1970, or one
            more than that of the change before.
        experiments: The experiments, the most recently started first.
        signature: The key's id and its signature of all that; "" if it is not signed.
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
        """What a signature is over. It can be no manifest and no pointer, which keys sign too."""
        text = json.dumps(self._content(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return f"{_FILE}\n{text}".encode()

    def to_json(self) -> bytes:
        """Returns the JSON that `from_json` reads."""
        content = {**self._content(), "signature": self.signature}
        return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> _File:
        """Parses what `to_json` wrote; number and signature may be missing.

        Raises:
            ArtifactError: The content is damaged.
        """
        try:
            raw = parse_json(content, f"file {_FILE!r}")
            if raw["format"] != _FORMAT:
                raise ValueError(f"format {raw['format']} is not {_FORMAT}")
            number, signature = raw.get("number", 0), raw.get("signature", "")
            if type(number) is not int or number < 0 or not isinstance(signature, str):
                raise TypeError("the number must be an integer, and the signature a text")
            experiments = [Experiment.from_json(each) for each in raw["experiments"]]
        except (AttributeError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise ArtifactError(f"damaged file {_FILE!r}: {reason_of(error)}") from error
        if sum(experiment.is_running for experiment in experiments) > 1:
            raise ArtifactError(f"damaged file {_FILE!r}: more than one experiment is running")
        return cls(number, experiments, signature)
