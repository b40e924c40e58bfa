"""What the trials of a search do: fit a model on given ratings, and measure its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np

from marquee_core.output import Output
from marquee_core.scorers.hyperparameters import ModelConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.ranking_metrics import TOP, RankingTask, mean_ndcg
from marquee_trainer.models.configurations import with_parameters
from marquee_trainer.models.model import Epoch, Model, Training, predict_pairs, score_known
from marquee_trainer.models.registry import MODELS_BY_NAME
from marquee_trainer.threads import blas_threads
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import interactions_of, release_data, validation_split


@dataclass(frozen=True)
class TuningTask:
    """The data on which trials are fitted and evaluated.

    Attributes:
        data: The ratings to fit on.
        validation: The ratings on which the loss is measured.
        fingerprint: Identifies the ratings to fit on.
        scale: The lowest and the highest rating, to which predictions are clipped.
        config: The configuration of training.
        from_stars: Converts a threshold in stars to the scale of the ratings.
        start: The hyperparameters of each model's first trial, by model name; defaults are used for
            missing ones.
    """

    data: ReleaseData
    validation: Interactions
    fingerprint: str
    scale: tuple[float, float]
    config: TrainingConfig
    from_stars: Callable[[float], float]
    start: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(
        cls,
        dataset: RatingsDataset,
        split: Split,
        seed: int,
        start: Mapping[str, Mapping[str, float]],
    ) -> TuningTask:
        """Splits validation ratings off the training part of a split."""
        config = TrainingConfig.for_dataset(dataset, seed)
        inner = validation_split(dataset, split, config)
        return cls(
            release_data(dataset, inner.train, config.baseline),
            interactions_of(dataset, inner.test),
            dataset.fingerprint(inner.train),
            (dataset.scale.low, dataset.scale.high),
            config,
            dataset.from_stars,
            start,
        )

    def configuration(self, name: str) -> ModelConfig:
        """The configuration of a model's first trial.

        Raises:
            ConfigurationError: The hyperparameters to start from are invalid.
        """
        return with_parameters(MODELS_BY_NAME[name].config_type(), self.start.get(name, {}))

    @blas_threads(1)
    def fit(
        self, name: str, parameters: Mapping[str, float], on_error: Callable[[int, float], None]
    ) -> float:
        """Fits a model, and returns its validation loss, measured with the scorer that serves it.

        Args:
            name: The name of the model.
            parameters: The hyperparameters of the trial; all others are those of the start.
            on_error: Called after each epoch whose validation MSE is finite, with the number of
                such epochs and the MSE. It may raise an exception to end the trial.
        """
        epochs = count(1)
        model = MODELS_BY_NAME[name](with_parameters(self.configuration(name), parameters))

        def on_epoch(epoch: Epoch) -> None:
            if epoch.validation_mse is not None and np.isfinite(epoch.validation_mse):
                on_error(next(epochs), epoch.validation_mse)

        # The fit may choose the number of epochs on the validation ratings, but no hyperparameters,
        # which would then differ from those of the trial.
        validation = self.validation if model.max_epochs else None
        model.fit(
            Training(
                self.data,
                validation,
                self.config.seed,
                on_epoch,
                self.config.relevant_stars,
                self.from_stars,
            )
        )
        return self._loss(model)

    def _loss(self, model: Model) -> float:
        scorer, validation = model.scorer, self.validation
        if scorer.output is Output.STARS:
            predicted = predict_pairs(scorer, self.data, validation.users, validation.items)
            return float(np.mean((np.clip(predicted, *self.scale) - validation.ratings) ** 2))
        task = RankingTask.of(self.data.matrix, validation, self.config.relevant_stars)
        return 1.0 - mean_ndcg(task, score_known(scorer, self.data), TOP)
