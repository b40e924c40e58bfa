"""`marquee serve` and `marquee releases`; light to import, so that `marquee --help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click

from marquee_services.gateway.settings import GatewaySettings
from marquee_services.scoring.settings import CFSettings, InferenceSettings
from marquee_services.server.heap import keep_heap_small, share_arenas
from marquee_services.server.settings import ServerSettings, settings_options


@click.group()
def serve() -> None:
    """Run a service: the gateway, the CF service or the inference service."""


@serve.command("gateway")
@settings_options(GatewaySettings, "MARQUEE_GATEWAY")
def serve_gateway(settings: GatewaySettings) -> None:
    """Run the gateway: RecommenderService for callers."""
    keep_heap_small()
    from marquee_services.gateway import main

    _run("gateway", settings, lambda: main.serve(settings))


@serve.command("cf")
@settings_options(CFSettings, "MARQUEE_CF")
def serve_cf(settings: CFSettings) -> None:
    """Run the CF service: ScoringService with NumPy and SciPy."""
    share_arenas()
    _limit_blas(settings.blas_threads)
    from marquee_services.cf.models import CF_SCORERS
    from marquee_services.scoring import main

    _run("cf", settings, lambda: main.serve(settings, "cf", CF_SCORERS))


@serve.command("inference")
@settings_options(InferenceSettings, "MARQUEE_INFERENCE")
def serve_inference(settings: InferenceSettings) -> None:
    """Run the inference service: ScoringService with TensorFlow."""
    # Before TensorFlow is imported: its messages are not for users, and Keras, which it would
    # import at once, is not needed to serve. With the legacy Keras, which is not installed, it
    # goes on without.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    share_arenas()
    _limit_blas(settings.blas_threads)
    from marquee_services.inference.models import INFERENCE_SCORERS, limit_threads
    from marquee_services.scoring import main

    limit_threads(settings.tensorflow_threads)
    _run("inference", settings, lambda: main.serve(settings, "inference", INFERENCE_SCORERS))


def _limit_blas(threads: int) -> None:
    """Limits the threads of matrix products; to be called before NumPy is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def _run(
    service: str, settings: ServerSettings, main: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    from marquee_services.server.logs import configure_logs
    from marquee_services.server.runtime import run

    configure_logs(service, settings.log_format, settings.log_level)
    try:
        run(main())
    except (OSError, ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error


@click.group()
@click.option(
    "--store",
    default=ServerSettings.store,
    envvar="MARQUEE_STORE",
    show_envvar=True,
    show_default=True,
    help="The release store: a folder or a URL.",
)
@click.pass_context
def releases(context: click.Context, store: str) -> None:
    """List, show, promote and roll back releases."""
    from marquee_core.release.store import ReleaseStore

    try:
        context.obj = ReleaseStore(store)
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error


@releases.command("list")
@click.pass_obj
def list_releases(store: Any) -> None:
    """List the releases, newest first; * marks the one in production."""
    from marquee.cli.table import render

    production = store.production()
    current = production.release_id if production else ""
    rows = [
        [
            "*" if manifest.release_id == current else "",
            manifest.release_id,
            manifest.data.source,
            str(manifest.data.rating_count),
            _metric(manifest.evaluation.get("ensemble_metrics", {}), "test_mse"),
            _metric(manifest.evaluation.get("ensemble_metrics", {}), "ndcg@10"),
        ]
        for manifest in store.manifests()
    ]
    headers = ["", "release", "data", "ratings", "test MSE", "NDCG@10"]
    click.echo(render(headers, rows, "lllrrr"))


@releases.command("show")
@click.argument("release_id")
@click.pass_obj
def show_release(store: Any, release_id: str) -> None:
    """Show the manifest of a release as JSON."""
    sys.stdout.write(_checked(lambda: store.manifest(release_id)).to_json())


@releases.command("promote")
@click.argument("release_id")
@click.pass_obj
def promote_release(store: Any, release_id: str) -> None:
    """Put a release in production, after its files are verified."""
    production = _checked(lambda: store.promote(release_id))
    click.echo(f"{production.release_id} is in production")


@releases.command("rollback")
@click.pass_obj
def roll_back_release(store: Any) -> None:
    """Put the release before the present one back in production."""
    production = _checked(store.rollback)
    click.echo(f"{production.release_id} is in production")


def _checked(work: Callable[[], Any]) -> Any:
    from marquee_core.errors import ArtifactError

    try:
        return work()
    except (ArtifactError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _metric(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else ""
