"""The base classes of the models that the CF service serves."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from marquee_core.scorers.scorer import FoldsOnRequest, ReleaseData, Scorer
from marquee_core.service_names import CF
from marquee_services.cf.models import CF_SCORERS
from marquee_trainer.models.model import ConfigT_co, ConfiguredModel, Fit, Training


class SavableScorer(Scorer, Protocol):
    """A scorer that writes its own artifacts."""

    def save(self, folder: Path) -> None:
        """Writes the configuration and the arrays that the service loads."""


ScorerT_co = TypeVar("ScorerT_co", bound=SavableScorer, covariant=True)


class CFModel(ConfiguredModel[ConfigT_co], Generic[ConfigT_co, ScorerT_co]):
    """A model of the CF service: fitting creates a scorer, which saves itself.

    Subclasses set `_scorer` in `fit`.
    """

    backend = CF

    def __init__(self, config: ConfigT_co | None = None) -> None:
        """Creates an unfitted model; see `ConfiguredModel`."""
        super().__init__(config)
        self._scorer: ScorerT_co | None = None

    @property
    def scorer(self) -> ScorerT_co:
        """See `Model.scorer`."""
        if self._scorer is None:
            raise RuntimeError(f"{self.name} is not fitted")
        return self._scorer

    def save(self, folder: Path) -> None:
        """See `Model.save`."""
        self.scorer.save(folder)

    def without_users(self) -> Self:
        """See `Model.without_users`."""
        if not isinstance(self.scorer, FoldsOnRequest):
            return self
        model = copy.copy(self)
        model._scorer = cast("ScorerT_co", self.scorer.without_users())
        return model

    @property
    def state(self) -> dict[str, Any] | None:
        """See `Model.state`: None for a model that the CF service cannot load."""
        return self.config_state() if self.name in CF_SCORERS else None

    def restore(self, folder: Path, data: ReleaseData, state: Mapping[str, Any]) -> None:
        """See `Model.restore`."""
        self.restore_config(state)
        # The service's load function returns the class of scorer that `fit` creates.
        self._scorer = cast("ScorerT_co", CF_SCORERS[self.name](folder, data))


class OnePassModel(CFModel[ConfigT_co, ScorerT_co]):
    """A model that `learn` computes deterministically from the ratings and the configuration."""

    @abstractmethod
    def learn(self, data: ReleaseData) -> ScorerT_co:
        """Computes the scorer from all training ratings."""

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        self._scorer = self.learn(training.data)
        return Fit()
