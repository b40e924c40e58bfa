"""The whole path, end to end: train, publish, serve, recommend, stop."""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from marquee import Client, Recommendations
from marquee.cli.table import render
from marquee_core.release.store import ReleaseStore
from marquee_services.processes import ServiceGroup
from marquee_trainer.commands.progress import metrics_table
from marquee_trainer.commands.settings import DemoSettings
from marquee_trainer.commands.train import load_and_split, publish, train_all
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.training.train import Trained

_SHOWN = 5
_TIMEOUT_S = 10.0
_TASTE = (5.0, 4.0, 1.0)


def run_demo(settings: DemoSettings) -> None:
    """Runs the demo.

    Raises:
        RatingsError: The ratings cannot be read.
        RuntimeError: A service did not start, or did not stop cleanly.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marquee-demo-")))
        url = settings.store or str(work / "releases")
        store = ReleaseStore(url)
        click.echo(f"Loading ratings: {settings.data}")
        dataset, split = load_and_split(settings)
        click.echo(
            f"  {len(dataset):,} ratings, {len(dataset.user_ids):,} users, "
            f"{len(dataset.catalogue):,} items; {split.description}"
        )
        click.echo("Training")
        trained = train_all(dataset, split, settings.seed, settings.config)
        click.echo(metrics_table(trained.evaluation))
        manifest = publish(store, dataset, split, trained, settings)
        store.promote(manifest.release_id)
        click.echo(f"\nRelease {manifest.release_id} is published and in production.")
        click.echo("Starting the CF service, the inference service and the gateway")
        group = stack.enter_context(ServiceGroup(url, work / "logs", settings.listen))
        with Client(group.gateway.address, timeout=_TIMEOUT_S, wait_for_ready=True) as client:
            _show_answers(client, dataset, trained)
        if settings.keep:
            _wait(group.gateway.address)
        click.echo("\nStopping")
        statuses = group.stop()
        if any(statuses.values()):
            raise RuntimeError(f"services did not stop cleanly: {statuses}")
    click.echo("Done.")


def _show_answers(client: Client, dataset: RatingsDataset, trained: Trained) -> None:
    """Recommends to a known user, a visitor and an unknown user."""
    matrix = trained.data.matrix
    counts = np.diff(matrix.indptr)
    # A user of middling activity, the first such by index.
    user = int(np.flatnonzero(counts == np.sort(counts)[len(counts) // 2])[0])
    user_id = dataset.user_ids.id(user)
    seen, stars = matrix.seen(user), matrix.profiles([user]).ratings
    liked = seen[np.argsort(-stars, kind="stable")[:_SHOWN]].tolist()
    click.echo(
        f"\nUser {user_id} rated {len(seen)} items; among the best: {_titles(dataset, liked)}"
    )
    _show(client.recommend(user_id, page_size=_SHOWN, include_metadata=True))
    popular = np.argsort(-matrix.item_counts, kind="stable")
    tastes = dict(zip(dataset.catalogue.items.ids(popular[: len(_TASTE)]), _TASTE, strict=True))
    rated = ", ".join(
        f"{dataset.catalogue.title(int(item))} {stars:g}★"
        for item, stars in zip(popular, _TASTE, strict=False)
    )
    click.echo(f"\nA visitor who rated {rated}")
    _show(client.recommend(ratings=tastes, page_size=_SHOWN, include_metadata=True))
    click.echo("\nA user whom the release does not know")
    _show(client.recommend("nobody-yet", page_size=_SHOWN, include_metadata=True))


def _titles(dataset: RatingsDataset, items: list[int]) -> str:
    return ", ".join(dataset.catalogue.title(item) for item in items)


def _show(answer: Recommendations) -> None:
    rows = [
        [
            str(item.rank),
            item.item_id,
            f"{item.title} ({item.year})" if item.year else str(item.title),
            f"{item.predicted_stars:.2f}",
            f"{item.score:.3f}",
            ", ".join(item.proposed_by),
        ]
        for item in answer
    ]
    click.echo(render(["", "item", "title", "stars", "score", "proposed by"], rows, "rllrrl"))
    weights = ", ".join(
        f"{w.model} {w.ranking_weight:.3g}" for w in answer.source.models if w.ranking_weight
    )
    state = "degraded" if answer.source.degraded else "full"
    click.echo(f"{answer.subject_kind.name}, {state} answer of {answer.source.release_id}")
    click.echo(f"ranking weights: {weights}")


def _wait(address: str) -> None:
    """Waits for Ctrl-C or SIGTERM."""
    click.echo(f"\nServing at {address}: marquee --address {address} recommend --user …")
    click.echo("Ctrl-C stops.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo()
