"""`marquee demo`: trains, publishes, serves and recommends, end to end, then stops."""

from __future__ import annotations

import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from marquee import Client, Recommendations, Status
from marquee.cli.table import render
from marquee_services.processes import PATIENCE, ServiceGroup, ServiceProcessError
from marquee_trainer.commands.interrupt import InterruptHandler
from marquee_trainer.commands.loading import load_and_split, open_store
from marquee_trainer.commands.selection import select_models
from marquee_trainer.commands.settings import DemoSettings
from marquee_trainer.commands.tables import metrics_table
from marquee_trainer.commands.train import train_all
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.scale import Feedback
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.results import TrainingResult

_PAGE_SIZE = 5
_TIMEOUT_S = 60.0
_WAIT_S = 120.0
_POLL_S = 0.05
# The stars that the visitor gives to the most-rated items, in this order.
_VISITOR_STARS = (5.0, 4.0, 1.0)


def run_demo(settings: DemoSettings) -> None:
    """Runs the demo.

    Raises:
        RatingsError: The ratings cannot be read.
        ConfigurationError: The file of hyperparameters cannot be read or names an unknown model.
        ClickException: A service did not start, or did not stop cleanly.
    """
    selection = select_models(settings)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marquee-demo-")))
        url = settings.store or str(work / "releases")
        store = open_store(url)
        click.echo(f"Loading ratings: {settings.data}")
        dataset, split = load_and_split(settings)
        click.echo(
            f"  {len(dataset):,} ratings, {len(dataset.user_ids):,} users, "
            f"{len(dataset.catalogue):,} items; {split.description}"
        )
        click.echo("Training")
        with InterruptHandler():
            trained = train_all(
                dataset, split, settings.seed, settings.config, selection, refit=True
            )
        click.echo(metrics_table(trained.evaluation))
        manifest = publish_trained(
            store, dataset, split, trained, TrainingConfig.for_dataset(dataset, settings.seed)
        )
        store.promote(manifest.release_id)
        click.echo(f"\nRelease {manifest.release_id} is published and in production.")
        click.echo("Starting the CF service, the inference service and the gateway")
        group = stack.enter_context(_start_services(url, work / "logs", settings.listen))
        with Client(group.gateway.address, timeout=_TIMEOUT_S, wait_for_ready=True) as client:
            _wait_until_fully_served(client, manifest.release_id)
            _show_recommendations(client, dataset.of_modelled_items(), trained)
        if settings.keep:
            _wait_for_interrupt(group.gateway.address)
        click.echo("\nStopping")
        statuses = group.stop()
        if any(statuses.values()):
            raise click.ClickException(f"services did not stop cleanly: exit status {statuses}")
    click.echo("Done.")


def _start_services(url: str, logs: Path, listen: str) -> ServiceGroup:
    """Starts the three services and waits until they serve.

    Raises:
        ClickException: A service exited or did not serve in time; the message ends with its log.
    """
    try:
        return ServiceGroup(url, logs, listen, gateway_options=PATIENCE)
    except ServiceProcessError as error:
        raise click.ClickException(str(error)) from error


def _wait_until_fully_served(client: Client, release_id: str) -> None:
    """Waits until the gateway and all backends serve a release, so that no answer is degraded.

    Raises:
        ClickException: They did not serve it in time.
    """
    deadline = time.monotonic() + _WAIT_S
    while not is_fully_served(state := client.status(), release_id):
        if time.monotonic() > deadline:
            reason = state.pending_release_reason or "a backend has not loaded it"
            raise click.ClickException(f"{release_id} is not served: {reason}")
        time.sleep(_POLL_S)


def is_fully_served(state: Status, release_id: str) -> bool:
    """Whether a release is in service and every backend that it needs has loaded it."""
    return (
        state.release is not None
        and state.release.release_id == release_id
        and all(b.healthy and release_id in b.loaded_release_ids for b in state.backends)
    )


def _show_recommendations(client: Client, dataset: RatingsDataset, trained: TrainingResult) -> None:
    """Recommends to a known user, a visitor and an unknown user."""
    matrix = trained.served_data.matrix
    counts = np.diff(matrix.indptr)
    # The first user whose number of ratings is the median.
    user = int(np.flatnonzero(counts == np.sort(counts)[len(counts) // 2])[0])
    user_id = dataset.user_ids.id(user)
    rated, stars = matrix.seen(user), matrix.profiles([user]).ratings
    favourites = rated[np.argsort(-stars, kind="stable")[:_PAGE_SIZE]].tolist()
    titles = ", ".join(dataset.catalogue.title(item) for item in favourites)
    click.echo(f"\nUser {user_id} rated {len(rated)} items; among the best: {titles}")
    _print_page(client.recommend(user_id, page_size=_PAGE_SIZE, include_metadata=True))
    most_rated = np.argsort(-matrix.item_counts, kind="stable")[: len(_VISITOR_STARS)]
    if dataset.feedback is Feedback.EXPLICIT:
        given = [dataset.from_stars(stars) for stars in _VISITOR_STARS]
    else:
        given = [dataset.scale.high] * len(most_rated)
    ratings = dict(zip(dataset.catalogue.items.ids(most_rated), given, strict=True))
    described = ", ".join(
        f"{dataset.catalogue.title(item)} {stars:g}★"
        for item, stars in zip(most_rated.tolist(), given, strict=True)
    )
    click.echo(f"\nA visitor who rated {described}")
    _print_page(client.recommend(ratings=ratings, page_size=_PAGE_SIZE, include_metadata=True))
    click.echo("\nA user who is not in the release")
    _print_page(client.recommend("nobody-yet", page_size=_PAGE_SIZE, include_metadata=True))


def _print_page(page: Recommendations) -> None:
    rows = [
        [
            str(item.rank),
            item.item_id,
            f"{item.title} ({item.year})" if item.year else str(item.title),
            "" if item.predicted_stars is None else f"{item.predicted_stars:.2f}",
            f"{item.score:.3f}",
            ", ".join(item.proposed_by),
        ]
        for item in page
    ]
    headers = ["", "item", "title", "stars", "score", "proposed by"]
    click.echo(render(headers, rows, "rllrrl", droppable=("proposed by", "score")))
    weights = ", ".join(
        f"{w.model} {w.ranking_weight:.3g}" for w in page.source.models if w.ranking_weight
    )
    reasons = ", ".join(reason.value for reason in page.source.degraded_reasons)
    state = f"degraded ({reasons})" if page.source.degraded else "full"
    click.echo(f"{page.subject_kind.name}, {state} answer of release {page.source.release_id}")
    click.echo(f"ranking weights: {weights}")


def _wait_for_interrupt(address: str) -> None:
    """Waits for Ctrl-C or SIGTERM."""
    click.echo(f"\nServing at {address}. Try: marquee --address {address} recommend --user …")
    click.echo("Press Ctrl-C to stop.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo()
