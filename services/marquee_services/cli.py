"""The commands `marquee serve` and `marquee releases`.

Importing this module is cheap, so that `marquee --help` stays fast: each command imports what it
needs when it runs.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marquee_core.service_names import CF, GATEWAY, INFERENCE, STANDALONE
from marquee_services.cf.settings import CFSettings
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.inference.settings import InferenceSettings
from marquee_services.server.heap import keep_heap_small, limit_arenas
from marquee_services.server.options import settings_options
from marquee_services.server.settings import ServerSettings
from marquee_services.standalone.settings import StandaloneSettings

if TYPE_CHECKING:
    from marquee_core.release.store import ReleaseStore

# Users whose ids are decoded and printed at once.
_BLOCK_USERS = 10_000


@click.group()
def serve() -> None:
    """Run a service: the gateway, a backend of it, or all of them in one process."""
    from marquee_services.server.logs import silence_native_logs

    silence_native_logs()


@serve.command(GATEWAY)
@settings_options(GatewaySettings, "MARQUEE_GATEWAY")
def serve_gateway(settings: GatewaySettings) -> None:
    """Run the gateway, which answers callers (RecommenderService)."""
    keep_heap_small()
    from marquee_services.gateway.main import serve

    _run(GATEWAY, settings, lambda: serve(settings))


@serve.command(CF)
@settings_options(CFSettings, "MARQUEE_CF")
def serve_cf(settings: CFSettings) -> None:
    """Run the CF service, which scores with NumPy and SciPy (ScoringService)."""
    limit_arenas()
    _limit_blas_threads(settings.blas_threads)
    from marquee_services.cf.main import serve

    _run(CF, settings, lambda: serve(settings))


@serve.command(INFERENCE)
@settings_options(InferenceSettings, "MARQUEE_INFERENCE")
def serve_inference(settings: InferenceSettings) -> None:
    """Run the inference service, which scores with TensorFlow (ScoringService)."""
    _leave_keras_out()
    limit_arenas()
    _limit_blas_threads(settings.blas_threads)
    from marquee_services.inference.main import serve

    _run(INFERENCE, settings, lambda: serve(settings))


@serve.command(STANDALONE)
@settings_options(StandaloneSettings, "MARQUEE_STANDALONE")
def serve_standalone(settings: StandaloneSettings) -> None:
    """Run the gateway with both backends in one process (RecommenderService)."""
    _leave_keras_out()
    limit_arenas()
    _limit_blas_threads(settings.blas_threads)
    from marquee_services.standalone.main import serve

    _run(STANDALONE, settings, lambda: serve(settings))


def _leave_keras_out() -> None:
    """Keeps TensorFlow from importing Keras, which serving does not need.

    With this setting TensorFlow looks for the legacy Keras instead, and goes on if that is not
    installed.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def _limit_blas_threads(threads: int) -> None:
    """Limits the threads of matrix products; has no effect after NumPy is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def _run(
    service: str, settings: ServerSettings, main: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    from marquee_services.server import tracing
    from marquee_services.server.logs import configure_logs
    from marquee_services.server.runtime import run

    configure_logs(service, settings.log_format, settings.log_level)
    # A hang-up reloads certificates and tokens once the server runs; before that it does nothing.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _errors_as_one_line():
        tracing.configure(service)
        try:
            run(main())
        finally:
            tracing.shut_down()


@click.group()
@click.option(
    "--store",
    default=ServerSettings.store,
    envvar="MARQUEE_STORE",
    show_envvar=True,
    show_default=True,
    help="Release store: a folder or a URL.",
)
@click.pass_context
def releases(context: click.Context, store: str) -> None:
    """List, show, promote and roll back releases."""
    from marquee_core.release.store import ReleaseStore

    with _errors_as_one_line():
        context.obj = ReleaseStore(store)


@releases.command("list")
@click.pass_obj
def list_releases(store: ReleaseStore) -> None:
    """List the releases, newest first; * marks the one in production.

    "serves" is the number of ratings that a release serves, "measured by" how its test ratings were
    chosen, and "on" how many there were.
    """
    from marquee.cli.table import render

    with _errors_as_one_line():
        production = store.production()
        manifests = store.manifests()
    current = production.release_id if production else ""
    rows = [
        [
            "*" if manifest.release_id == current else "",
            manifest.release_id,
            manifest.data.source,
            f"{manifest.data.rating_count:,}",
            str(manifest.evaluation.get("split", "")),
            f"{manifest.evaluation.get('test_ratings', 0):,}",
            _metric(manifest.evaluation.get("ensemble_metrics", {}), "test_mse"),
            _metric(manifest.evaluation.get("ensemble_metrics", {}), "ndcg@10"),
        ]
        for manifest in manifests
    ]
    headers = ["", "release", "data", "serves", "measured by", "on", "test MSE", "NDCG@10"]
    droppable = ("measured by", "on", "data", "serves")
    click.echo(render(headers, rows, "lllrlrrr", droppable=droppable))


@releases.command("show")
@click.argument("release_id")
@click.pass_obj
def show_release(store: ReleaseStore, release_id: str) -> None:
    """Show the manifest of a release as JSON."""
    with _errors_as_one_line():
        manifest = store.manifest(release_id)
    sys.stdout.write(manifest.to_json())


@releases.command("users")
@click.argument("release_id", required=False)
@click.pass_obj
def list_users(store: ReleaseStore, release_id: str | None) -> None:
    """List the ids of a release's users, one per line; by default of the one in production.

    \b
    Example:
      marquee releases users | marquee batch --file - --out all.parquet
    """  # noqa: D301 - \b keeps the lines as they are
    from marquee_core.errors import ArtifactError
    from marquee_core.release.contents import load_users

    with _errors_as_one_line(), tempfile.TemporaryDirectory(prefix="marquee-users-") as cache:
        production = store.production()
        if release_id is None and production is None:
            raise ArtifactError("no release is in production")
        found = release_id or (production.release_id if production else "")
        users = load_users(store, store.manifest(found), Path(cache))
        for first in range(0, len(users), _BLOCK_USERS):
            block = users.ids(range(first, min(first + _BLOCK_USERS, len(users))))
            click.echo("\n".join(block))


@releases.command("promote")
@click.argument("release_id")
@click.pass_obj
def promote_release(store: ReleaseStore, release_id: str) -> None:
    """Check the files of a release, then put it in production.

    In object storage only the sizes of the files are checked. Servers verify the SHA-256 digest of
    every file that they load.
    """
    with _errors_as_one_line():
        production = store.promote(release_id)
    click.echo(f"{production.release_id} is in production")


@releases.command("rollback")
@click.pass_obj
def roll_back_release(store: ReleaseStore) -> None:
    """Put the previous release back in production."""
    with _errors_as_one_line():
        production = store.rollback()
    click.echo(f"{production.release_id} is in production")


@contextmanager
def _errors_as_one_line() -> Iterator[None]:
    """Reports expected errors in one line; any other error keeps its traceback.

    Expected are damaged or missing releases, files and addresses that cannot be used, and stores
    whose URL is wrong or needs a package that is not installed.
    """
    from marquee_core.errors import ArtifactError
    from marquee_core.redaction import redact
    from marquee_core.release.store import StoreURLError

    try:
        yield
    except (ArtifactError, StoreURLError, OSError) as error:
        raise click.ClickException(redact(str(error))) from error


def _metric(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else ""
