"""An experiment, its arms, and the assignment of users to arms."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from marquee_core.errors import ArtifactError, reason_of
from marquee_core.release.manifest import check_release_id

CONTROL = "control"
"""The name of the arm that the others are compared with. It also answers the users of an arm whose
release cannot be loaded."""

MAX_ARMS = 4
"""The maximum number of arms. Every server keeps the releases of all arms loaded."""

MAX_NAME_LENGTH = 40
LIKES, CLICKS, STARS = "likes", "clicks", "stars"
METRICS = (LIKES, CLICKS, STARS)
"""The metrics by which arms can be compared; see `marquee_core.experiments.outcome`."""

_NAME = re.compile(rf"[0-9A-Za-z][0-9A-Za-z_-]{{0,{MAX_NAME_LENGTH - 1}}}")
_ID_DIGITS = 8
_SECRET_BYTES = 16
_HASH_BITS = 64
_PERCENT_TOLERANCE = 1e-6


class ExperimentError(ValueError):
    """An experiment is not valid, or cannot be changed as requested."""


@dataclass(frozen=True)
class Arm:
    """An arm of an experiment: a release, or a blend of its models, for a share of the users.

    Attributes:
        name: The arm's name, unique in the experiment.
        release_id: The release that answers.
        percent: The share of users, in percent.
        ranking_weights: The weights of the ranking models, by name; empty for the release's own
            blend. Stars are always predicted by the release's own blend.
    """

    name: str
    release_id: str
    percent: float
    ranking_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ExperimentError(
                f"the name of an arm must have 1 to {MAX_NAME_LENGTH} letters, digits, '-' and "
                f"'_', not {self.name!r}"
            )
        try:
            check_release_id(self.release_id)
        except ArtifactError as error:
            raise ExperimentError(f"arm {self.name}: {error}") from error
        if not 0.0 < self.percent <= 100.0:
            raise ExperimentError(
                f"arm {self.name}: the share must be above 0 % and at most 100 %, not "
                f"{self.percent:g} %"
            )
        weights = self.ranking_weights.values()
        if weights and not (all(map(math.isfinite, weights)) and any(weights)):
            raise ExperimentError(
                f"arm {self.name}: ranking weights must be finite, and at least one must not be 0"
            )

    @property
    def description(self) -> str:
        """The release and, unless it is the release's own, the blend, in the syntax of `--arm`."""
        if not self.ranking_weights:
            return self.release_id
        blend = ",".join(
            name if weight == 1.0 else f"{name}={weight:g}"
            for name, weight in self.ranking_weights.items()
        )
        return f"{self.release_id}@{blend}"


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        name: The name, unique in the store. Users are assigned to arms by a hash of it.
        arms: The arms, of which one is named `control`.
        metric: The metric by which the arms are compared, one of `METRICS`.
        alpha: The probability of a wrong verdict if the arms do not differ.
        rating_min: The lowest rating of the control's scale, in stars.
        rating_max: The highest rating of the control's scale, in stars.
        secret: The key, in hexadecimal, that authenticates recommendation ids.
        started_at: The time at which it was started, RFC 3339.
        log_position: The position in the feedback log at that time; 0 if it is not known.
        ended_at: The time at which it was ended, RFC 3339; "" while it is running.
        outcome: How it ended: `stopped`, or `promoted ARM`; "" while it is running.
    """

    name: str
    arms: tuple[Arm, ...]
    metric: str
    alpha: float
    rating_min: float
    rating_max: float
    secret: str
    started_at: str
    log_position: int = 0
    ended_at: str = ""
    outcome: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ExperimentError(
                f"the name of an experiment must have 1 to {MAX_NAME_LENGTH} letters, digits, '-' "
                f"and '_', not {self.name!r}"
            )
        if not 2 <= len(self.arms) <= MAX_ARMS:
            raise ExperimentError(
                f"an experiment must have 2 to {MAX_ARMS} arms, not {len(self.arms)}"
            )
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ExperimentError(f"two arms have the same name: {', '.join(names)}")
        if CONTROL not in names:
            raise ExperimentError(
                f"one arm, with which the others are compared, must be named {CONTROL!r}"
            )
        total = math.fsum(arm.percent for arm in self.arms)
        if abs(total - 100.0) > _PERCENT_TOLERANCE:
            raise ExperimentError(f"the shares of the arms add up to {total:g} %, not 100 %")
        if self.metric not in METRICS:
            raise ExperimentError(
                f"the metric must be one of {', '.join(METRICS)}, not {self.metric!r}"
            )
        if not 0.0 < self.alpha < 0.5:
            raise ExperimentError(f"alpha must be between 0 and 0.5, not {self.alpha:g}")
        if not -math.inf < self.rating_min < self.rating_max < math.inf:
            raise ExperimentError("the rating scale is empty or not finite")
        if len(self.secret) != 2 * _SECRET_BYTES or not _is_hexadecimal(self.secret):
            raise ExperimentError("the secret is not a hexadecimal key")

    @property
    def is_running(self) -> bool:
        """Whether it has not been ended."""
        return not self.ended_at

    @property
    def control(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arm(CONTROL)

    @cached_property
    def experiment_id(self) -> str:
        """A short id, derived from the name, for recommendation ids (8 hexadecimal digits)."""
        return hashlib.sha256(b"marquee experiment\0" + self.name.encode()).hexdigest()[:_ID_DIGITS]

    @cached_property
    def key(self) -> bytes:
        """The key that authenticates recommendation ids."""
        return bytes.fromhex(self.secret)

    @cached_property
    def _limits(self) -> tuple[int, ...]:
        """For each arm except the last, the lowest hash of users that belong to a later arm."""
        limits, total = [], 0.0
        for arm in self.arms[:-1]:
            total += arm.percent
            limits.append(round(total / 100.0 * (1 << _HASH_BITS)))
        return tuple(limits)

    def arm(self, name: str) -> Arm:
        """Returns the arm with a name.

        Raises:
            ExperimentError: The experiment has no such arm.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        names = ", ".join(arm.name for arm in self.arms)
        raise ExperimentError(f"experiment {self.name} has no arm {name!r}; it has {names}")

    def assign(self, user_id: str) -> int:
        """Assigns a user to an arm, and returns the index of the arm in `arms`.

        The assignment depends only on the user's id and the experiment's name. It is therefore the
        same in every server and after every restart, and independent of other experiments.
        """
        text = f"{self.name}\0{user_id}".encode()
        number = int.from_bytes(hashlib.sha256(text).digest()[: _HASH_BITS // 8])
        return sum(number >= limit for limit in self._limits)

    def to_json(self) -> dict[str, Any]:
        """Returns the experiment as JSON values."""
        return {
            "name": self.name,
            "arms": [
                {
                    "name": arm.name,
                    "release_id": arm.release_id,
                    "percent": arm.percent,
                    "ranking_weights": dict(arm.ranking_weights),
                }
                for arm in self.arms
            ],
            "metric": self.metric,
            "alpha": self.alpha,
            "rating_min": self.rating_min,
            "rating_max": self.rating_max,
            "secret": self.secret,
            "started_at": self.started_at,
            "log_position": self.log_position,
            "ended_at": self.ended_at,
            "outcome": self.outcome,
        }

    @classmethod
    def from_json(cls, raw: Any) -> Experiment:
        """Parses the result of `to_json`.

        Raises:
            ArtifactError: A value is missing, has the wrong type, or is not valid.
        """
        try:
            return cls(
                _text(raw["name"]),
                tuple(
                    Arm(
                        _text(arm["name"]),
                        _text(arm["release_id"]),
                        _number(arm["percent"]),
                        {_text(k): _number(v) for k, v in arm["ranking_weights"].items()},
                    )
                    for arm in raw["arms"]
                ),
                _text(raw["metric"]),
                _number(raw["alpha"]),
                _number(raw["rating_min"]),
                _number(raw["rating_max"]),
                _text(raw["secret"]),
                _text(raw["started_at"]),
                int(_number(raw["log_position"])),
                _text(raw["ended_at"]),
                _text(raw["outcome"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ArtifactError(f"damaged experiment: {reason_of(error)}") from error


def new_secret() -> str:
    """Generates a key for the recommendation ids of an experiment, in hexadecimal."""
    return secrets.token_hex(_SECRET_BYTES)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _is_hexadecimal(text: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in text)
