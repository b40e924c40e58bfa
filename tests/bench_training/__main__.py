"""Runs the comparison of fitting times: `make bench-training`."""

from __future__ import annotations

import importlib.util
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import click
import numpy as np
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from scipy.sparse import csr_matrix

from marquee.cli.table import render
from marquee_core.cores import usable_cores
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_services.server.options import settings_options
from marquee_trainer.commands.loading import load_and_split
from marquee_trainer.commands.settings import AUTO_SPLIT, DataSettings
from marquee_trainer.models.cf_model import OnePassModel
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.training.config import BaselineConfig
from marquee_trainer.training.preparation import release_data

_THREADS = usable_cores()
# Targets: maximum ratio to the time of each library, and maximum memory.
_MAX_RATIO_TO_IMPLICIT, _MAX_RATIO_TO_SURPRISE = 1.5, 1.0
_MAX_GB = 8.0
_KINDS: Mapping[str, type[OnePassModel[Any, Any]]] = {"item": ItemCF, "user": UserCF}
Fit = Callable[[], object]


def marquee_fit(data: ReleaseData, kind: str) -> Fit:
    """Returns a function that fits Marquee's neighbourhoods with the default configuration."""
    return lambda: _KINDS[kind]().learn(data)


def implicit_fit(data: ReleaseData, kind: str) -> Fit:
    """Returns a function that fits as many neighbours with implicit, on all cores."""
    matrix = data.matrix
    rated = csr_matrix((matrix.ratings, (matrix.users, matrix.items)))
    rated = rated if kind == "item" else rated.T.tocsr()
    neighbours = _KINDS[kind].config_type().neighbours

    def fit() -> None:
        with warnings.catch_warnings():
            # implicit warns about the format of a matrix that it creates itself.
            warnings.simplefilter("ignore", ParameterWarning)
            CosineRecommender(K=neighbours, num_threads=_THREADS).fit(rated, show_progress=False)

    return fit


def surprise_fit(data: ReleaseData, kind: str) -> Fit | None:
    """Returns a function that fits Surprise's `KNNBaseline`; None if Surprise is not installed."""
    if importlib.util.find_spec("surprise") is None:
        return None
    library: Any = importlib.import_module("surprise")
    matrix = data.matrix
    rows = zip(matrix.users.tolist(), matrix.items.tolist(), matrix.ratings.tolist(), strict=True)
    trainset = library.Dataset(library.Reader(rating_scale=(1, 5))).construct_trainset(
        (user, item, stars, None) for user, item, stars in rows
    )
    options = {"name": "pearson_baseline", "user_based": kind == "user"}
    return lambda: library.KNNBaseline(sim_options=options, verbose=False).fit(trainset)


def seconds(fit: Fit) -> float:
    """Runs a fit and returns its duration in seconds."""
    began = time.perf_counter()
    fit()
    return time.perf_counter() - began


def compare(data: ReleaseData, rounds: int) -> list[list[str]]:
    """Times the fits alternately over several rounds.

    Returns:
        The rows of the table, with the medians of the times and of the ratios.
    """
    rows = []
    for kind in _KINDS:
        mine, theirs = marquee_fit(data, kind), implicit_fit(data, kind)
        mine()  # Numba compiles during the first call.
        times = [(seconds(mine), seconds(theirs)) for _ in range(rounds)]
        other = surprise_fit(data, kind)
        references = [("implicit", [b for _, b in times], _MAX_RATIO_TO_IMPLICIT)]
        if other is not None:
            references.append(("Surprise", [seconds(other)] * rounds, _MAX_RATIO_TO_SURPRISE))
        for name, found, limit in references:
            ratio = statistics.median(a / b for (a, _), b in zip(times, found, strict=True))
            own = statistics.median(a for a, _ in times)
            verdict = "met" if ratio <= limit else "missed"
            reference = f"{statistics.median(found):.2f}"
            row = [f"{kind} neighbours, against {name}", f"{own:.2f}", reference, f"{ratio:.2f}"]
            rows.append([*row, f"<= {limit:g}", verdict])
        if other is None:
            rows.append([f"{kind} neighbours, against Surprise", "", "not installed", "", "", ""])
    return rows


def large_data(users: int, items: int, ratings: int, seed: int) -> ReleaseData:
    """Draws random ratings with long tails of users and items, as in MovieLens.

    Args:
        users: Number of users.
        items: Number of items.
        ratings: Number of ratings.
        seed: Seed for the random numbers.
    """
    random = np.random.default_rng(seed)
    activity = random.lognormal(0.0, 1.0, users)
    popularity = 1.0 / (np.arange(items) + items / 100) ** 0.8
    cells = np.empty(0, np.int64)
    while len(cells) < ratings:
        count = ratings - len(cells)
        drawn = random.choice(users, count, p=activity / activity.sum()) * items
        drawn += random.choice(items, count, p=popularity / popularity.sum())
        cells = np.union1d(cells, drawn)
    stars = random.integers(1, 6, len(cells)).astype(np.float32)
    matrix = RatingsMatrix.of(
        (cells // items).astype(np.int32), (cells % items).astype(np.int32), stars, users, items
    )
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 2))


def large_rows(users: int, items: int, ratings: int, seed: int) -> list[list[str]]:
    """Fits both neighbourhood models to large generated data.

    Returns:
        The rows of the table, with the fitting time and the peak memory of the process.
    """
    data = large_data(users, items, ratings, seed)
    rows = []
    size = f"{users:,} users, {items:,} items, {data.matrix.rating_count:,} ratings"
    for kind in _KINDS:
        spent = seconds(marquee_fit(data, kind))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        verdict = "met" if peak < _MAX_GB else "missed"
        rows.append([f"{kind} neighbours, {size}", f"{spent:.0f}", f"peak memory {peak:.2f} GB"])
        rows[-1] += ["", f"< {_MAX_GB:g} GB", verdict]
    return rows


@click.command()
@settings_options(DataSettings, "MARQUEE_BENCH_TRAINING")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Rounds of the comparison.")
@click.option(
    "--large",
    "large_size",
    type=(int, int, int),
    default=None,
    help="Fit to generated data: numbers of users, items and ratings (200000 50000 20000000).",
)
def main(settings: DataSettings, rounds: int, large_size: tuple[int, int, int] | None) -> None:
    """Measures the fitting time and memory of neighbourhood models."""
    if large_size:
        rows = large_rows(*large_size, settings.seed)
    else:
        if settings.split == AUTO_SPLIT:
            settings = replace(settings, split="random")
        dataset, split = load_and_split(settings)
        rows = compare(release_data(dataset, split.train, BaselineConfig()), rounds)
    headers = ["", "s", "reference", "ratio", "target", "verdict"]
    click.echo(render(headers, rows, "lrrrrl"))


if __name__ == "__main__":
    main()
