"""Searches the hyperparameters of models on validation ratings, which are split from training.

The test ratings are not used. The first trial of a model is the configuration to start from. Every
fourth trial is drawn at random from the search space, the others near the best one so far.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from marquee_core.output import Output
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.ranking_metrics import TOP, RankingTask, ranking_metrics
from marquee_trainer.models.configurations import (
    ConfigurationError,
    read_parameters,
    value_of,
    with_parameters,
)
from marquee_trainer.models.model import Model, Training, predict_pairs, score_known
from marquee_trainer.models.registry import MODELS_BY_NAME
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import interactions_of, release_data, validation_split
from marquee_trainer.tuning.spaces import SPACES

# The standard deviation around the best trial, as a share of the range of each hyperparameter.
_SPREAD = 0.12
# The probability that a hyperparameter is changed from the best trial.
_CHANGE_PROBABILITY = 0.5


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        parameters: The values of all hyperparameters that are searched, by name.
        loss: The validation loss: the MSE in squared stars, or 1 − NDCG@10 for a ranker.
        seconds: The time to fit the model, in seconds.
    """

    parameters: dict[str, float]
    loss: float
    seconds: float


@dataclass
class Search:
    """The search for one model.

    Attributes:
        model: The name of the model.
        trials: The trials, in order.
    """

    model: str
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial:
        """The trial with the lowest loss."""
        return min(self.trials, key=lambda trial: trial.loss)


def tune(
    dataset: RatingsDataset,
    split: Split,
    models: Sequence[str],
    minutes: float,
    seed: int,
    start: dict[str, dict[str, float]],
    on_trial: Callable[[str, Trial], None],
) -> list[Search]:
    """Searches the hyperparameters of several models, with an equal share of the time for each.

    Args:
        dataset: The ratings.
        split: The split of the ratings; only its training part is used.
        models: The names of the models.
        minutes: The time for all searches, in minutes. Each model has at least one trial.
        seed: The seed for the validation split, the models and the search.
        start: The hyperparameters of each model's first trial, by model name; the defaults are
            used for what is missing.
        on_trial: Called after each trial with the name of the model and the trial.

    Raises:
        ConfigurationError: A model is unknown, or has no search space.
    """
    for name in models:
        if name not in SPACES:
            raise ConfigurationError(f"there is no model {name!r} with a search space")
    config = TrainingConfig(seed=seed)
    inner = validation_split(dataset, split, config)
    data = release_data(dataset, inner.train, config.baseline)
    validation = interactions_of(dataset, inner.test)
    scale = dataset.scale.low, dataset.scale.high
    searches = []
    for place, name in enumerate(models):
        model_class = MODELS_BY_NAME[name]
        random = np.random.default_rng((seed, place))
        search = Search(name)
        end = time.monotonic() + 60.0 * minutes / len(models)
        first = with_parameters(model_class.config_type(), start.get(name, {}))
        parameters = {path: value_of(first, path) for path in SPACES[name]}
        while not search.trials or time.monotonic() < end:
            model = model_class(with_parameters(first, parameters))
            began = time.monotonic()
            # The validation ratings may choose the number of epochs, but not the hyperparameters,
            # which would then differ from those of the trial.
            model.fit(Training(data, validation if model.max_epochs else None, seed))
            seconds = time.monotonic() - began
            loss = _loss(model, data, validation, scale, config.relevant_stars)
            search.trials.append(Trial(parameters, loss, round(seconds, 2)))
            on_trial(name, search.trials[-1])
            parameters = _next(search, random)
        searches.append(search)
    return searches


def _next(search: Search, random: np.random.Generator) -> dict[str, float]:
    """Draws the hyperparameters of the next trial.

    Every fourth trial is drawn from the whole search space. In the others, about half of the
    hyperparameters of the best trial are changed, and at least one.
    """
    space, best = SPACES[search.model], search.best.parameters
    if len(search.trials) % 4 == 0:
        return {name: values.draw(random) for name, values in space.items()}
    changes = random.random(len(space)) < _CHANGE_PROBABILITY
    changes[random.integers(len(space))] = True
    return {
        name: values.near(best[name], _SPREAD, random) if change else best[name]
        for (name, values), change in zip(space.items(), changes, strict=True)
    }


def _loss(
    model: Model,
    data: ReleaseData,
    validation: Interactions,
    scale: tuple[float, float],
    relevant_stars: float,
) -> float:
    """The validation loss of a fitted model, measured with the scorer that serves."""
    scorer = model.scorer
    if scorer.output is Output.STARS:
        predicted = predict_pairs(scorer, data, validation.users, validation.items)
        return float(np.mean((np.clip(predicted, *scale) - validation.ratings) ** 2))
    task = RankingTask.of(data.matrix, validation, relevant_stars)
    return 1.0 - ranking_metrics(task, score_known(scorer, data), TOP).ndcg


def write_configurations(
    path: Path, dataset: RatingsDataset, split: Split, searches: Sequence[Search], seed: int
) -> None:
    """Writes the best configurations to a file, with a record of how they were found.

    Other models in an existing file are kept. Where the file already has a model, its number of
    trials is added to, and the first loss stays that of the first search.

    Args:
        path: The file.
        dataset: The ratings.
        split: The split that was tuned on.
        searches: The search for each model.
        seed: The seed of the searches.

    Raises:
        ConfigurationError: The existing file is not a file of tuned configurations.
    """
    models: dict[str, Any] = {}
    if path.exists():
        read_parameters(path)
        models = json.loads(path.read_text())["models"]
    for search in searches:
        best, before = search.best, models.get(search.model, {})
        models[search.model] = {
            "parameters": best.parameters,
            "validation_loss": round(best.loss, 5),
            "first_loss": before.get("first_loss", round(search.trials[0].loss, 5)),
            "trials": before.get("trials", 0) + len(search.trials),
            "seconds": best.seconds,
            "date": datetime.now(UTC).date().isoformat(),
            "seed": seed,
            "space": {
                name: [values.low, values.high] for name, values in SPACES[search.model].items()
            },
        }
    data = {
        "ratings": len(dataset),
        "users": len(dataset.user_ids),
        "items": len(dataset.catalogue),
        "fingerprint": dataset.fingerprint(),
        "split": split.description,
        "training_ratings": len(split.train),
        "training_fingerprint": dataset.fingerprint(split.train),
    }
    text = json.dumps({"data": data, "models": dict(sorted(models.items()))}, indent=2)
    path.write_text(text + "\n")
