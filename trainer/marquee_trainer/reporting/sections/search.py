"""Hyperparameters: those chosen on validation ratings, and how the others were searched."""

from __future__ import annotations

from collections.abc import Sequence

from marquee_trainer.models.configurations import Searches, SearchRecord
from marquee_trainer.models.linear.implicit_feedback import ImplicitFeedbackModel
from marquee_trainer.models.model import Model
from marquee_trainer.reporting.page import Section


def chosen_section(models: Sequence[Model]) -> Section:
    """The hyperparameters that implicit-feedback models chose on the validation ratings."""
    rows = [
        [
            model.name,
            ", ".join(
                f"{name} {model.parameters[name]}" for name in model.validated_hyperparameters()
            ),
        ]
        for model in models
        if isinstance(model, ImplicitFeedbackModel)
    ]
    return Section(
        "Hyperparameters of implicit-feedback models",
        "Chosen by NDCG@10 on the validation ratings of this evaluation, starting from the "
        "configured values. The best values depend on how the test ratings were chosen.",
        ("model", "hyperparameters"),
        rows,
    )


def search_section(searches: Searches, is_same_training_data: bool) -> Section:
    """How `marquee tune` found the configured hyperparameters.

    Args:
        searches: The searches, as the configuration file records them.
        is_same_training_data: Whether they used exactly the training ratings of this evaluation.
    """
    if not is_same_training_data:
        return Section(
            "Configured hyperparameters",
            "`marquee tune` chose these hyperparameters on other ratings than the training ratings "
            "of this evaluation. If these include test ratings of this evaluation, its figures are "
            "too optimistic. Models that are not in the table use the package's defaults.",
            ("model", "hyperparameters"),
            [[name, _parameters(record)] for name, record in searches.models.items()],
        )
    rows = [
        [
            name,
            f"{record.trials}",
            f"{record.first_loss:.4f}",
            f"{record.best_loss:.4f}",
            _parameters(record),
        ]
        for name, record in searches.models.items()
    ]
    return Section(
        "Hyperparameter search",
        "`marquee tune` searched hyperparameters on a validation part of the training ratings of "
        "this evaluation. The loss is the validation MSE, or 1 − NDCG@10 for rankers. Models that "
        "are not in the table use the package's defaults. A further search continues from the best "
        "values found so far and may find better ones.",
        ("model", "trials", "first loss", "best loss", "hyperparameters"),
        rows,
    )


def _parameters(record: SearchRecord) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in record.parameters.items())
