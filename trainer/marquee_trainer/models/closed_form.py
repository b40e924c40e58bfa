"""Models that are learned in one pass, without epochs, and whose scorers save themselves."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.models.model import Fit, Model, Training

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class SavedScorer(Scorer, Protocol):
    """A scorer that keeps its configuration and writes its own artifacts."""

    @property
    def config(self) -> Any:
        """The configuration that it was learned with."""

    def save(self, folder: Path) -> None:
        """Writes what `load` reads."""

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: The artifacts are not what they should be.
        """


ConfigT = TypeVar("ConfigT", bound="DataclassInstance")
ScorerT = TypeVar("ScorerT", bound=SavedScorer)


class ClosedFormModel(Model, Generic[ConfigT, ScorerT]):
    """A model without epochs.

    Attributes:
        config_type: The class of its configuration; its defaults are the model's.
        scorer_type: The class of its scorer.
    """

    backend = "cf"
    config_type: ClassVar[type[Any]]
    scorer_type: ClassVar[type[Any]]

    def __init__(self, config: ConfigT | None = None) -> None:
        """Takes the configuration; None for the default."""
        self._config: ConfigT = self.config_type() if config is None else config
        self._scorer: ScorerT | None = None

    @abstractmethod
    def learn(self, data: ReleaseData) -> ScorerT:
        """Learns from all ratings; nothing is random."""

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`; validation ratings are not used."""
        self._scorer = self.learn(training.data)
        return Fit()

    def with_epochs(self, epochs: int) -> Self:  # noqa: ARG002 - there are none
        """As `Model.with_epochs`."""
        return type(self)(self._config)

    @property
    def scorer(self) -> ScorerT:
        """As `Model.scorer`."""
        if self._scorer is None:
            raise RuntimeError(f"{self.name} is not fitted")
        return self._scorer

    def save(self, folder: Path) -> None:
        """As `Model.save`."""
        self.scorer.save(folder)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """As `Model.load`."""
        scorer = cls.scorer_type.load(folder, data)
        model = cls(scorer.config)
        model._scorer = scorer
        return model

    @property
    def parameters(self) -> dict[str, object]:
        """As `Model.parameters`."""
        return asdict(self._config)
