"""Searches configurations on validation ratings cut from the training part.

The test ratings are not touched. The first trial is what there is; the others are drawn at random
over the search space or, most of them, near the best so far.
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
    changed,
    default_config,
    model_kinds,
    read_parameters,
    value_of,
)
from marquee_trainer.models.model import Model, Training, predict_pairs, score_known
from marquee_trainer.training.train import (
    TrainingConfig,
    interactions_of,
    release_data,
    validation_split,
)
from marquee_trainer.tuning.spaces import SPACES

# How near the best so far: a standard deviation, as a share of each range.
_SPREAD = 0.12
# The probability that a parameter differs from the best so far.
_MOVED = 0.5


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        parameters: The values of all parameters that are varied.
        loss: Validation MSE in squared stars; of models of order, 1 − NDCG@10.
        seconds: How long fitting took.
    """

    parameters: dict[str, float]
    loss: float
    seconds: float


@dataclass
class Search:
    """The trials of one model.

    Attributes:
        model: Its name.
        trials: The trials, in order.
    """

    model: str
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial:
        """The trial with the least loss."""
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
    """Searches each model's configuration for an equal share of the time.

    Args:
        dataset: The ratings.
        split: Of which only the training part is used.
        models: Names of the models.
        minutes: The time in all. Each model has at least one trial, of what there is.
        seed: Of the validation part, the models and the search.
        start: By model, the parameters of the first trial; the default's where it has none.
        on_trial: Called after each trial.

    Raises:
        ConfigurationError: There is no such model, or nothing to vary of it.
    """
    kinds = model_kinds()
    for name in models:
        if name not in kinds or name not in SPACES:
            raise ConfigurationError(f"there is nothing to tune of {name!r}")
    config = TrainingConfig(seed=seed)
    inner = validation_split(dataset, split, config)
    data = release_data(dataset, inner.train, config.baseline)
    validation = interactions_of(dataset, inner.test)
    scale = dataset.scale.low, dataset.scale.high
    found = []
    for place, name in enumerate(models):
        random = np.random.default_rng((seed, place))
        search = Search(name)
        end = time.monotonic() + 60.0 * minutes / len(models)
        first = changed(default_config(kinds[name]), start.get(name, {}))
        parameters = {path: value_of(first, path) for path in SPACES[name]}
        while not search.trials or time.monotonic() < end:
            model = kinds[name](changed(first, parameters))
            began = time.monotonic()
            # Only for epochs: what else a model would choose is what is being searched.
            model.fit(Training(data, validation if model.max_epochs else None, seed))
            seconds = time.monotonic() - began
            loss = _loss(model, data, validation, scale, config.relevant_stars)
            search.trials.append(Trial(parameters, loss, round(seconds, 2)))
            on_trial(name, search.trials[-1])
            parameters = _next(search, random)
        found.append(search)
    return found


def _next(search: Search, random: np.random.Generator) -> dict[str, float]:
    """Parameters for the next trial: every fourth at random, the others near the best.

    Near the best, about half of the parameters differ, at least one.
    """
    space, best = SPACES[search.model], search.best.parameters
    if len(search.trials) % 4 == 0:
        return {name: values.draw(random) for name, values in space.items()}
    moved = random.random(len(space)) < _MOVED
    moved[random.integers(len(space))] = True
    return {
        name: values.near(best[name], _SPREAD, random) if moves else best[name]
        for (name, values), moves in zip(space.items(), moved, strict=True)
    }


def _loss(
    model: Model,
    data: ReleaseData,
    validation: Interactions,
    scale: tuple[float, float],
    relevant_stars: float,
) -> float:
    """What the search minimises, measured with the scorer that serves."""
    scorer = model.scorer
    if scorer.output is Output.STARS:
        predicted = predict_pairs(scorer, data, validation.users, validation.items)
        return float(np.mean((np.clip(predicted, *scale) - validation.ratings) ** 2))
    task = RankingTask.of(data.matrix, validation, relevant_stars)
    return 1.0 - ranking_metrics(task, score_known(scorer, data), TOP).ndcg


def write_configurations(
    path: Path, dataset: RatingsDataset, split: Split, searches: Sequence[Search], seed: int
) -> None:
    """Writes the best parameters with their provenance; other models' in the file stay.

    Trials are counted, and the first loss is kept, over all searches that the file has seen.

    Raises:
        ConfigurationError: The file that is there is not one of ours.
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
