"""Runs the comparison of rankings: `make bench-quality`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from bench_quality.references import REFERENCES, Reference, Score
from marquee.cli.table import render
from marquee_services.server.options import settings_options
from marquee_trainer.commands.evaluate import metrics_json
from marquee_trainer.commands.loading import load_and_split
from marquee_trainer.commands.settings import AUTO_SPLIT, DataSettings
from marquee_trainer.commands.train import train_all
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split, split_by
from marquee_trainer.metrics.beyond_accuracy import beyond_accuracy
from marquee_trainer.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from marquee_trainer.metrics.item_vectors import item_vectors
from marquee_trainer.metrics.ranking_metrics import (
    RECALL_TOP,
    TOP,
    RankingMetrics,
    RankingTask,
    ranking_metrics,
)
from marquee_trainer.training.config import BaselineConfig, TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.preparation import interactions_of, release_data

_TARGET = 1.03


def tuned(
    reference: Reference, dataset: RatingsDataset, inner: Split, relevant: float, bar: tqdm[Any]
) -> dict[str, object]:
    """Finds the parameters of a reference with the highest NDCG@10 on validation ratings.

    Args:
        reference: The reference.
        dataset: All ratings.
        inner: The split of the training ratings into a training and a validation part.
        relevant: Minimum stars of a relevant item.
        bar: The progress bar, advanced by one for each combination of the grid.

    Returns:
        The best parameters.
    """
    task = RankingTask.of(
        dataset.matrix(inner.train), interactions_of(dataset, inner.test), relevant
    )
    best: tuple[float, dict[str, object]] = (-1.0, {})
    for values in reference.candidates():
        score = reference.fit(dataset, inner.train, values)
        found = ranking_metrics(task, score, TOP).ndcg
        best = max(best, (found, values), key=lambda row: row[0])
        bar.update()
    return best[1]


@click.command()
@settings_options(DataSettings, "MARQUEE_BENCH_QUALITY")
@click.option("--folder", default="build/bench-quality", help="Folder for the results.")
def main(settings: DataSettings, folder: str) -> None:
    """Tunes and fits the references, trains the ensemble, and compares their rankings."""
    if settings.split == AUTO_SPLIT:
        settings = replace(settings, split="random")
    dataset, split = load_and_split(settings)
    relevant = TrainingConfig.for_dataset(dataset).relevant_stars
    # The validation ratings are split off the training ratings in the same way as the test ratings.
    share, seed = settings.test_fraction, settings.seed
    inner = split_by(settings.split, dataset, split.train, share, seed)
    task = RankingTask.of(
        dataset.matrix(split.train), interactions_of(dataset, split.test), relevant
    )
    vectors = item_vectors(release_data(dataset, split.train, BaselineConfig()))
    found: dict[str, RankingMetrics] = {}
    chosen: dict[str, dict[str, object]] = {}
    trials = sum(len(list(reference.candidates())) for reference in REFERENCES)
    with tqdm(total=trials, unit="trial", leave=False, disable=None) as bar:
        for reference in REFERENCES:
            bar.set_description(reference.name)
            chosen[reference.name] = tuned(reference, dataset, inner, relevant, bar)
            score: Score = reference.fit(dataset, split.train, chosen[reference.name])
            found[reference.name] = ranking_metrics(task, score, TOP, RECALL_TOP)
    trained = train_all(dataset, split, settings.seed)
    for name, ranked in trained.evaluation.rankings.items():
        found[f"ours: {name}"] = ranked
    report(found, chosen, task, vectors, settings, split, Path(folder))
    (Path(folder) / "metrics.json").write_text(metrics_json(trained.evaluation))


def report(
    found: dict[str, RankingMetrics],
    chosen: dict[str, dict[str, object]],
    task: RankingTask,
    vectors: np.ndarray,
    settings: DataSettings,
    split: Split,
    folder: Path,
) -> None:
    """Prints the metrics and the ratio with its target, and writes the results as JSON.

    Args:
        found: The metrics of each ranker by name.
        chosen: The tuned parameters of each reference by name.
        task: The ranking task of the test ratings.
        vectors: The item vectors for the diversity metric.
        settings: The settings of the data and the split.
        split: The split into training and test ratings.
        folder: Folder for `results.json`.
    """
    rows, content = [], {}
    for name, ranked in sorted(found.items(), key=lambda row: -row[1].ndcg):
        interval = bootstrap_interval(ranked.ndcg_by_user, settings.seed)
        beyond = beyond_accuracy(task, ranked, vectors, TOP)
        figures = {
            f"ndcg@{TOP}": ranked.ndcg,
            f"recall@{RECALL_TOP}": ranked.recall,
            "mrr": ranked.mrr,
            "map": ranked.map,
            f"coverage@{TOP}": ranked.coverage,
            **beyond,
        }
        content[name] = {**figures, "low": interval.low, "high": interval.high}
        rows.append(
            [
                name,
                f"{ranked.ndcg:.4f}",
                f"{interval.low:.4f}–{interval.high:.4f}",
                *(f"{value:.4f}" for value in list(figures.values())[1:]),
            ]
        )
    headers = ["model", f"NDCG@{TOP}", "95 %", f"Recall@{RECALL_TOP}", "MRR", "MAP"]
    headers += ["coverage", "novelty", "Gini", "diversity", "debiased NDCG"]
    click.echo(f"{settings.data}, {split.description}; {len(task.users):,} users")
    click.echo(render(headers, rows, "l" + "r" * (len(headers) - 1)))
    best = max(chosen, key=lambda name: found[name].ndcg)
    ours = found[f"ours: {ENSEMBLE}"]
    ratio = ours.ndcg / found[best].ndcg
    compared = paired_bootstrap(ours.ndcg_by_user, found[best].ndcg_by_user, settings.seed)
    verdict = "met" if ratio >= _TARGET else "missed"
    click.echo(
        f"NDCG of the ensemble relative to the best reference, {best}: {ratio:.3f} "
        f"(target >= {_TARGET}, {verdict}); "
        f"p {compared.p_value:.4f}"
    )
    for name, values in chosen.items():
        click.echo(f"  {name}: {values}")
    folder.mkdir(parents=True, exist_ok=True)
    result = {"split": split.description, "models": content, "chosen": chosen, "ratio": ratio}
    (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
