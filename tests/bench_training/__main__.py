"""Runs the comparison: `make bench-training`, with the ratings in ARGS."""

from __future__ import annotations

import importlib.util
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import click
import numpy as np
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from scipy.sparse import csr_matrix

from marquee.cli.table import render
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_services.server.settings import settings_options
from marquee_trainer.commands.settings import DataSettings
from marquee_trainer.commands.train import load_and_split
from marquee_trainer.models.closed_form import ClosedFormModel
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.threads import usable_cores
from marquee_trainer.training.train import BaselineConfig, release_data

_THREADS = usable_cores()
_MOST_TO_IMPLICIT, _MOST_TO_SURPRISE = 1.5, 1.0
_MOST_GB = 8.0
_KINDS: Mapping[str, type[ClosedFormModel[Any, Any]]] = {"item": ItemCF, "user": UserCF}
Fit = Callable[[], object]


def ours(data: ReleaseData, kind: str) -> Fit:
    """Marquee's neighbourhoods, with the default configuration."""
    return lambda: _KINDS[kind]().learn(data)


def implicit(data: ReleaseData, kind: str) -> Fit:
    """Those of implicit, as many, of cosine similarity, on all cores."""
    matrix = data.matrix
    rated = csr_matrix((matrix.ratings, (matrix.users, matrix.items)))
    rated = rated if kind == "item" else rated.T.tocsr()
    neighbours = _KINDS[kind].config_type().neighbours

    def fit() -> None:
        with warnings.catch_warnings():
            # Of a matrix of its own making.
            warnings.simplefilter("ignore", ParameterWarning)
            CosineRecommender(K=neighbours, num_threads=_THREADS).fit(rated, show_progress=False)

    return fit


def surprise(data: ReleaseData, kind: str) -> Fit | None:
    """Those of Surprise, by Pearson's correlation of baseline residuals; None where it is not."""
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
    """How long a fit takes."""
    began = time.perf_counter()
    fit()
    return time.perf_counter() - began


def compare(data: ReleaseData, rounds: int) -> list[list[str]]:
    """Rows of the table: each fit in turn, round after round, medians of times and of ratios."""
    rows = []
    for kind in _KINDS:
        mine, theirs = ours(data, kind), implicit(data, kind)
        mine()  # compiled at the first call
        times = [(seconds(mine), seconds(theirs)) for _ in range(rounds)]
        other = surprise(data, kind)
        references = [("implicit", [b for _, b in times], _MOST_TO_IMPLICIT)]
        if other is not None:
            references.append(("Surprise", [seconds(other)] * rounds, _MOST_TO_SURPRISE))
        for name, found, most in references:
            ratio = statistics.median(a / b for (a, _), b in zip(times, found, strict=True))
            own = statistics.median(a for a, _ in times)
            verdict = "met" if ratio <= most else "short"
            reference = f"{statistics.median(found):.2f}"
            row = [f"{kind} neighbours, to {name}'s", f"{own:.2f}", reference, f"{ratio:.2f}"]
            rows.append([*row, f"<= {most:g}", verdict])
        if other is None:
            rows.append([f"{kind} neighbours, to Surprise's", "", "not installed", "", "", ""])
    return rows


def large_data(users: int, items: int, ratings: int, seed: int) -> ReleaseData:
    """Ratings at random: users and items differ in how many they have, as in MovieLens.

    Args:
        users: How many users.
        items: How many items.
        ratings: About how many ratings: pairs that are drawn twice count once.
        seed: Of what is drawn.
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


def large(users: int, items: int, ratings: int, seed: int) -> list[list[str]]:
    """Rows of the table: both neighbourhoods of large data, and the most memory that was held."""
    data = large_data(users, items, ratings, seed)
    rows = []
    what = f"{users:,} users, {items:,} items, {data.matrix.rating_count:,} ratings"
    for kind in _KINDS:
        spent = seconds(ours(data, kind))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        verdict = "met" if peak < _MOST_GB else "short"
        rows.append([f"{kind} neighbours, {what}", f"{spent:.0f}", f"{peak:.2f} GB held at most"])
        rows[-1] += ["", f"< {_MOST_GB:g} GB", verdict]
    return rows


@click.command()
@settings_options(DataSettings, "MARQUEE_BENCH_TRAINING")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Rounds.")
@click.option(
    "--large",
    "large_size",
    type=(int, int, int),
    default=None,
    help="Users, items and ratings of generated data to measure instead, as 200000 50000 20000000.",
)
def main(settings: DataSettings, rounds: int, large_size: tuple[int, int, int] | None) -> None:
    """Measures how long neighbourhoods take to find, and what they hold."""
    if large_size:
        rows = large(*large_size, settings.seed)
    else:
        dataset, split = load_and_split(settings)
        rows = compare(release_data(dataset, split.train, BaselineConfig()), rounds)
    headers = ["", "s", "reference", "ratio", "target", "verdict"]
    click.echo(render(headers, rows, "lrrrrl"))


if __name__ == "__main__":
    main()
