"""The fits of a training run as independent chains, one per model.

    fit on the training ratings without the validation part → refit on all training ratings → refit
    on all ratings, for the release

A fit depends only on what earlier fits of the same model chose, so chains can run in any order and
in any process: one after another in this process (`train.py`, `refit.py`), or in parallel in others
(`parallel_fits.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.models.model import Epoch, Model, Training
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import (
    all_rows,
    interactions_of,
    release_data,
    validation_split,
)
from marquee_trainer.training.recency import choose_half_life

FIT, REFIT, FINAL_FIT = "fit", "refit", "fit on all"
"""The stages of a chain, in order, as checkpoints name them."""


@dataclass(frozen=True)
class TrainingPlan:
    """The inputs of all fits of a run; values derived from the ratings are computed on first use.

    Attributes:
        dataset: The ratings.
        split: Their training and test part.
        config: The configuration of the run.
        with_final_fit: Whether the models are fitted on all ratings at the end.
    """

    dataset: RatingsDataset
    split: Split
    config: TrainingConfig
    with_final_fit: bool = True

    @cached_property
    def validation_split(self) -> Split:
        """The training ratings, split into a training part and a validation part."""
        return validation_split(self.dataset, self.split, self.config)

    @cached_property
    def half_life_days(self) -> float | None:
        """The half-life of recent popularity; None without timestamps."""
        if not self.dataset.has_timestamps:
            return None
        return choose_half_life(
            self.dataset, self.validation_split, self.config.relevant_stars, self.config.recency
        )

    @cached_property
    def validation(self) -> Interactions:
        """The validation ratings of the first fits."""
        return interactions_of(self.dataset, self.validation_split.test)

    @cached_property
    def training(self) -> Training:
        """The input of the first fits, without callbacks."""
        return Training(
            release_data(
                self.dataset,
                self.validation_split.train,
                self.config.baseline,
                self.half_life_days,
            ),
            self.validation,
            self.config.seed,
            relevant_stars=self.config.relevant_stars,
            from_stars=self.dataset.from_stars,
        )

    @cached_property
    def refit_data(self) -> ReleaseData:
        """The ratings that models are refitted on before the evaluation."""
        return release_data(
            self.dataset, self.split.train, self.config.baseline, self.half_life_days
        )

    @cached_property
    def final_data(self) -> ReleaseData:
        """All ratings, on which the served models are fitted."""
        rows = all_rows(self.split)
        return release_data(self.dataset, rows, self.config.baseline, self.half_life_days)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of each chain."""
        return (FIT, REFIT, FINAL_FIT) if self.with_final_fit else (FIT, REFIT)

    def chain(
        self, model: Model, on_epoch: Callable[[Epoch], None]
    ) -> Iterator[tuple[str, Model, Training]]:
        """Yields the fits of a model in order; each must be done before the next is requested.

        Args:
            model: The unfitted model.
            on_epoch: Called after each epoch of a fit.

        Yields:
            The stage, the unfitted model, and the input of the fit.
        """
        yield FIT, model, replace(self.training, on_epoch=on_epoch)
        refit = model.for_refit()
        yield REFIT, refit, Training(self.refit_data, None, self.config.seed, on_epoch)
        if self.with_final_fit:
            final = refit.for_refit()
            yield FINAL_FIT, final, Training(self.final_data, None, self.config.seed, on_epoch)
