"""The interface of all models: fit, score, save."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.scorers.hyperparameters import ModelConfig
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.scale import Feedback

Parameters: TypeAlias = Mapping[str, NDArray[Any]]
"""Fitted parameters by name, from which a later fit can start."""

NO_PARAMETERS: Parameters = MappingProxyType({})

# The number of scores computed at a time; a block takes 16 MB.
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class Epoch:
    """One point of a learning curve.

    Attributes:
        train_mse: The mean squared error of the training ratings, in squared stars.
        validation_mse: The mean squared error of the validation ratings, in squared stars; None
            without validation ratings.
    """

    train_mse: float
    validation_mse: float | None


@dataclass(frozen=True)
class Training:
    """The input of a fit.

    Attributes:
        data: The training ratings, and the baseline fitted on them.
        validation: Held-out ratings for choosing the number of epochs or hyperparameters; None to
            fit with the configuration unchanged.
        seed: The seed for all randomness.
        on_epoch: Called after each epoch, to report progress.
        relevant_stars: The lowest rating, in stars, that makes a validation item relevant.
        from_stars: Converts a threshold that is configured in stars to the scale of the ratings;
            None if thresholds are already on that scale, as in a refit.
    """

    data: ReleaseData
    validation: Interactions | None = None
    seed: int = 0
    on_epoch: Callable[[Epoch], None] = lambda _: None
    relevant_stars: float = 4.0
    from_stars: Callable[[float], float] | None = None


@dataclass(frozen=True)
class Fit:
    """The course of a fit.

    Attributes:
        curve: The learning curve; empty for a model without epochs.
        epochs: The number of epochs of the fitted model; 0 for a model that does not choose it.
    """

    curve: tuple[Epoch, ...] = ()
    epochs: int = 0


class Model(ABC):
    """A model that is fitted on a ratings matrix.

    A model is fitted once. It then scores through `scorer`, which has the same class as the scorer
    that serves the saved artifacts.

    Attributes:
        name: The name of the model in requests and in releases.
        backend: The service that serves it: `cf`, `inference` or `gateway`.
        output: The meaning of its scores, as of its scorer. Only rankers (`Output.AFFINITY`) can be
            trained on implicit feedback.
        start: The parameters from which the fit starts; empty to start anew.
        learned: The fitted parameters from which a refit starts; empty if refits start anew.
    """

    name: ClassVar[str]
    backend: ClassVar[str]
    output: ClassVar[Output] = Output.STARS
    start: Parameters = NO_PARAMETERS
    learned: Parameters = NO_PARAMETERS

    @abstractmethod
    def fit(self, training: Training) -> Fit:
        """Fits the model; the result depends only on the training input and the machine."""

    @abstractmethod
    def for_refit(self) -> Self:
        """Returns an unfitted model to refit on more ratings, without validation ratings.

        It has the configuration of this model, including everything that its fit chose on
        validation ratings, and starts from the parameters that this model has learned. The refit
        must have the same users and items, of which some may have had no ratings before.
        """

    @property
    def max_epochs(self) -> int:
        """The maximum number of epochs of a fit, to show progress; 0 without epochs."""
        return 0

    @property
    @abstractmethod
    def scorer(self) -> Scorer:
        """The scorer of the fitted model.

        Raises:
            RuntimeError: The model is not fitted.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the artifacts that the service loads.

        Raises:
            RuntimeError: The model is not fitted.
        """

    @property
    @abstractmethod
    def parameters(self) -> dict[str, object]:
        """The configuration, for the manifest."""

    def without_users(self) -> Self:
        """Returns the model without data of known users if its scorer implements `FoldsOnRequest`.

        Otherwise returns the model itself.

        Raises:
            RuntimeError: The model is not fitted.
        """
        return self

    @property
    def state(self) -> dict[str, Any] | None:
        """What `restore` needs besides the artifacts, as JSON; None if a fit cannot be restored."""
        return None

    def restore(self, folder: Path, data: ReleaseData, state: Mapping[str, Any]) -> None:
        """Restores a saved fit, as if `fit` had been called.

        Args:
            folder: The folder that `save` wrote.
            data: The data that the model was fitted on.
            state: The `state` that the fitted model had.

        Raises:
            ArtifactError: The artifacts are damaged.
            NotImplementedError: A fit of this model cannot be restored; its `state` is None.
        """
        raise NotImplementedError(f"a fit of {self.name} cannot be restored")


ConfigT = TypeVar("ConfigT", bound=ModelConfig)
ConfigT_co = TypeVar("ConfigT_co", bound=ModelConfig, covariant=True)


class ConfiguredModel(Model, Generic[ConfigT_co]):
    """A model with hyperparameters.

    Attributes:
        config_type: The class of its configuration; without arguments, it creates the default.
    """

    config_type: type[ConfigT_co]

    def __init__(self, config: ConfigT_co | None = None) -> None:
        """Creates an unfitted model.

        Args:
            config: The configuration; None for the default.
        """
        self._config: ConfigT_co = self.config_type() if config is None else config

    @property
    def config(self) -> ConfigT_co:
        """The configuration, including what a fit chose on validation ratings."""
        return self._config

    def for_refit(self) -> Self:
        """See `Model.for_refit`."""
        model = type(self)(self._config)
        model.start = self.learned
        return model

    @property
    def parameters(self) -> dict[str, object]:
        """See `Model.parameters`."""
        return asdict(self._config)

    def restore_config(self, state: Mapping[str, Any]) -> None:
        """Restores the configuration from a state that `config_state` returned."""
        self._config = _with_values(self._config, state["config"])

    def config_state(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return {"config": asdict(self._config)}


def _with_values(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Replaces the values of a configuration by those of an `asdict` of its class."""
    changes: dict[str, Any] = {}
    for name, value in values.items():
        current = getattr(config, name)
        if isinstance(current, ModelConfig):
            value = _with_values(current, value)
        elif isinstance(current, tuple):
            value = tuple(value)
        changes[name] = value
    return replace(config, **changes)


def can_learn_from(output: Output, feedback: Feedback) -> bool:
    """Whether a model whose scores have a given meaning can learn from a kind of feedback.

    Implicit feedback has no ratings to predict, so only rankers can learn from it.
    """
    return output is Output.AFFINITY or feedback is Feedback.EXPLICIT


def score_known(scorer: Scorer, data: ReleaseData) -> Callable[[Int32], Float32]:
    """Returns a function from indexes of B known users to scores of all items (float32, B × items).

    Args:
        scorer: The scorer of a fitted model.
        data: The data that the model was fitted on.
    """
    return lambda users: scorer.score(data.matrix.profiles(users))


def predict_pairs(scorer: Scorer, data: ReleaseData, users: Int32, items: Int32) -> Float32:
    """Scores (user, item) pairs of known users.

    Args:
        scorer: The scorer of a fitted model.
        data: The data that the model was fitted on.
        users: The user of each pair, in any order (int32, n).
        items: The item of each pair (int32, n).

    Returns:
        The scores, not clipped to the rating scale (float32, n).
    """
    scores = np.empty(len(users), dtype=np.float32)
    order = np.argsort(users, kind="stable")
    distinct, starts = np.unique(users[order], return_index=True)
    ends = np.append(starts[1:], len(users))
    # All items are scored for a block of users, and the pairs are taken from the result.
    block = max(1, _BLOCK_CELLS // max(1, data.matrix.item_count))
    for first in range(0, len(distinct), block):
        part = distinct[first : first + block]
        dense = scorer.score(data.matrix.profiles(part))
        rows = order[starts[first] : ends[first + len(part) - 1]]
        scores[rows] = dense[np.searchsorted(part, users[rows]), items[rows]]
    return scores
