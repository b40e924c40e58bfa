"""The results of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from marquee_core.arrays import Float32
from marquee_core.release.ensemble import Ensemble
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Fit, Model
from marquee_trainer.training.evaluate import Evaluation


@dataclass(frozen=True)
class ValidationPredictions:
    """Predictions of the validation ratings, by models that were fitted without them.

    Attributes:
        by_model: The predictions of each rating predictor, in stars (float32, n).
        ratings: The validation ratings, in stars (float32, n); for a large data set, those of a
            sample of users.
    """

    by_model: Mapping[str, Float32]
    ratings: Float32


@dataclass(frozen=True)
class Refit:
    """The models fitted on all ratings, for a release to serve.

    Attributes:
        data: All ratings, training and test, and the bias baseline fitted on them.
        models: The models, fitted on all ratings.
        seconds: The duration of each model's fit, in seconds.
    """

    data: ReleaseData
    models: tuple[Model, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """Trained models, their ensemble and their evaluation.

    Attributes:
        data: The training ratings and the bias baseline fitted on them, with the items of
            `RatingsDataset.of_modelled_items`, as in all other attributes.
        models: The models as they were evaluated, fitted on all training ratings.
        ensemble: The blends for every set of available backends.
        evaluation: Metrics of each model, of the baselines and of the ensemble.
        fits: For each model, the learning curve and the number of epochs of the fit that held out
            the validation ratings.
        validation: The predictions from which the rating blend was learned.
        seconds: The duration of each model's fit on all training ratings, in seconds.
        refit: The models fitted on all ratings, which a release serves; None to serve the models as
            they were evaluated.
    """

    data: ReleaseData
    models: tuple[Model, ...]
    ensemble: Ensemble
    evaluation: Evaluation
    fits: Mapping[str, Fit]
    validation: ValidationPredictions
    seconds: Mapping[str, float]
    refit: Refit | None = None

    def folding_on_request(self) -> TrainingResult:
        """Returns a copy whose served models store nothing per known user, if supported."""
        models = tuple(model.without_users() for model in self.served_models)
        if self.refit is None:
            return replace(self, models=models)
        return replace(self, refit=replace(self.refit, models=models))

    @property
    def served_data(self) -> ReleaseData:
        """The ratings and the baseline that a release of these models serves."""
        return self.data if self.refit is None else self.refit.data

    @property
    def served_models(self) -> tuple[Model, ...]:
        """The models that a release serves."""
        return self.models if self.refit is None else self.refit.models
