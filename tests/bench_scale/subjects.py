"""The subjects of the measurements: fitting each model, the blend, the evaluation and reading.

Each measurement runs in a separate process, which prints a line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import click
import numpy as np
import polars as pl

from bench_scale.ratings import SEED, SIZES, SyntheticRatings
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.source import load_ratings
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.configurations import model_factories
from marquee_trainer.models.model import Model, Training
from marquee_trainer.models.registry import MODELS_BY_NAME
from marquee_trainer.threads import blas_threads
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import evaluate
from marquee_trainer.training.train import learn_ensemble_of

BLEND, EVALUATION, READING, POLARS = "blend", "evaluation", "reading CSV", "polars: reading CSV"
IN_RANDOM_ORDER = " in random order"
READINGS = {
    READING: POLARS,
    READING + IN_RANDOM_ORDER: POLARS + IN_RANDOM_ORDER,
}
"""Each way of reading, and what Polars takes for the same file."""
SUBJECTS = (*MODELS_BY_NAME, BLEND, EVALUATION, *chain(*READINGS.items()))
# The models for the blend and the evaluation, with scorers of different kinds.
_SCORED = ("item_cf", "user_cf", "ials", "ease")


def measure(subject: str, ratings: SyntheticRatings) -> dict[str, float]:
    """Measures one subject.

    Returns:
        The CPU time of all threads in seconds (`cpu_s`), and the peak memory of the process in GB
        (`peak_gb`).
    """
    work = _prepare(subject, ratings)
    start = time.process_time()
    work()
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"cpu_s": spent, "peak_gb": peak}


def _prepare(subject: str, ratings: SyntheticRatings) -> Callable[[], object]:
    if subject.removesuffix(IN_RANDOM_ORDER) in (READING, POLARS):
        return _reading(subject, ratings)
    if subject not in (BLEND, EVALUATION):
        data = _data(ratings, slice(None))
        model = _model(subject, ratings)
        _warm_up(subject)
        return lambda: _fit(model, data)
    held_out = np.random.default_rng(SEED).random(ratings.size.ratings) < 0.1
    data = _data(ratings, ~held_out)
    models = [_model(name, ratings) for name in _SCORED]
    for model in models:
        _fit(model, data)
    train, test = (
        Interactions(ratings.users[rows], ratings.items[rows], ratings.stars[rows])
        for rows in (~held_out, held_out)
    )
    config = TrainingConfig()
    every = (*fitted_baselines(data), *models)
    if subject == BLEND:
        return lambda: learn_ensemble_of(data, every, test, config)
    # Any blends will do here, so they are learned from a small part of the data.
    small = np.isin(test.users, np.unique(test.users)[:100])
    few = Interactions(test.users[small], test.items[small], test.ratings[small])
    ensemble, _ = learn_ensemble_of(data, every, few, config)
    scale = RatingScale.of(ratings.stars)
    return lambda: evaluate(
        data, models, ensemble, train, test, scale, config.relevant_stars, seed=SEED
    )


def _data(ratings: SyntheticRatings, rows: np.ndarray | slice) -> ReleaseData:
    matrix = ratings.matrix(rows)
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 2))


def _model(name: str, ratings: SyntheticRatings) -> Model:
    """Makes a model with the configuration that training uses for this number of ratings."""
    (make,) = model_factories(ratings.size.ratings, names=[name])
    return make()


@blas_threads(1)
def _fit(model: Model, data: ReleaseData) -> None:
    model.fit(Training(data, None, SEED))


def _warm_up(name: str) -> None:
    """Fits a tiny data set, so that compilation, which does not grow, is not measured."""
    ratings = SyntheticRatings.draw(SIZES["0.01"], SEED)
    _fit(_model(name, ratings), _data(ratings, slice(None)))


def _reading(subject: str, ratings: SyntheticRatings) -> Callable[[], object]:
    folder = tempfile.TemporaryDirectory(prefix="bench-scale-")
    path = Path(folder.name) / "ratings.csv"
    frame = pl.DataFrame(
        {
            "userId": ratings.users + 1,
            "movieId": ratings.items + 1,
            "rating": ratings.stars,
            "timestamp": ratings.times,
        }
    )
    if subject.endswith(IN_RANDOM_ORDER):
        frame = frame.sample(fraction=1, shuffle=True, seed=SEED)
    frame.write_csv(path)
    del frame

    def read() -> object:
        with folder:
            return pl.read_csv(path) if subject.startswith(POLARS) else load_ratings(str(path))

    return read


if __name__ == "__main__":
    name, millions, file = sys.argv[1:]
    click.echo(json.dumps(measure(name, SyntheticRatings.load(Path(file), SIZES[millions]))))
