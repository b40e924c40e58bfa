"""Trials, and the search for one model that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trial:
    """A configuration and its loss.

    Attributes:
        parameters: The values of all searched hyperparameters, by name.
        loss: The validation loss: the MSE in squared stars, or 1 − NDCG@10 for a ranker. For a
            pruned trial, the MSE of its last epoch.
        seconds: The time to fit the model, in seconds.
        pruned: Whether the trial was ended early, because others were better at that epoch.
    """

    parameters: Mapping[str, float]
    loss: float
    seconds: float
    pruned: bool = False


@dataclass
class Search:
    """The search for one model.

    Attributes:
        model: The name of the model.
        trials: The trials in order, beginning with those of earlier runs of the same study.
        study: The name of the study; empty for none. Losses are comparable only within a study.
        lost: The number of trials of this run that were given up because their worker processes
            died.
    """

    model: str
    trials: list[Trial] = field(default_factory=list)
    study: str = ""
    lost: int = 0

    @property
    def best(self) -> Trial:
        """The trial with the lowest loss among those that were not pruned.

        Raises:
            ValueError: There is no such trial.
        """
        return min((t for t in self.trials if not t.pruned), key=lambda trial: trial.loss)
