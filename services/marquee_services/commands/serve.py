"""The commands `marquee serve …`, which run the servers.

Importing this module is cheap, so that `marquee --help` stays fast: each command imports what it
needs when it runs.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from marquee_core.service_names import CF, GATEWAY, INFERENCE, STANDALONE
from marquee_services.cf.settings import CFSettings
from marquee_services.commands.support import errors_as_one_line
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.inference.settings import InferenceSettings
from marquee_services.server.environment import (
    limit_blas_threads,
    silence_native_logs,
    skip_keras,
)
from marquee_services.server.heap import keep_heap_small, limit_arenas
from marquee_services.server.options import settings_options
from marquee_services.server.settings import ServerSettings
from marquee_services.standalone.settings import StandaloneSettings

if TYPE_CHECKING:
    from marquee_services.server.releases.fork_server import ForkServer
    from marquee_services.server.releases.trial_process import TrialLoader

    _Server: TypeAlias = tuple[
        Callable[[Any, ForkServer | None], Coroutine[Any, Any, None]],
        Callable[[Any], Mapping[str, TrialLoader]],
    ]


@click.group()
def serve() -> None:
    """Run a server: the gateway, one of its backends, or all of them in one process."""
    silence_native_logs()


@serve.command(GATEWAY)
@settings_options(GatewaySettings, "MARQUEE_GATEWAY")
def serve_gateway(settings: GatewaySettings) -> None:
    """Run the gateway, which serves the public API.

    It implements RecommenderService and FeedbackService.
    """
    _run(GATEWAY, settings)


@serve.command(CF)
@settings_options(CFSettings, "MARQUEE_CF")
def serve_cf(settings: CFSettings) -> None:
    """Run the CF service, a backend of the gateway.

    It implements ScoringService with NumPy and SciPy.
    """
    _run(CF, settings)


@serve.command(INFERENCE)
@settings_options(InferenceSettings, "MARQUEE_INFERENCE")
def serve_inference(settings: InferenceSettings) -> None:
    """Run the inference service, a backend of the gateway.

    It implements ScoringService with NumPy, and with TensorFlow for models that need it.
    """
    _run(INFERENCE, settings)


@serve.command(STANDALONE)
@settings_options(StandaloneSettings, "MARQUEE_STANDALONE")
def serve_standalone(settings: StandaloneSettings) -> None:
    """Run the gateway with both backends in one process."""
    _run(STANDALONE, settings)


def _import_gateway(_settings: GatewaySettings) -> _Server:
    keep_heap_small()
    from marquee_services.gateway.main import serve, trial_loaders

    return serve, trial_loaders


def _import_cf(settings: CFSettings) -> _Server:
    limit_arenas()
    limit_blas_threads(settings.blas_threads)
    from marquee_services.cf.main import serve, trial_loaders

    return serve, trial_loaders


def _import_inference(settings: InferenceSettings) -> _Server:
    skip_keras()
    limit_arenas()
    limit_blas_threads(settings.blas_threads)
    from marquee_services.inference.main import serve, trial_loaders

    return serve, trial_loaders


def _import_standalone(settings: StandaloneSettings) -> _Server:
    skip_keras()
    limit_arenas()
    limit_blas_threads(settings.blas_threads)
    from marquee_services.standalone.main import serve, trial_loaders

    return serve, trial_loaders


# The settings of each server, and the function that imports the server: it returns the coroutine
# function that serves, and the function that returns the server's loaders for trials.
_SERVERS: Mapping[str, tuple[type[ServerSettings], Callable[[Any], _Server]]] = {
    GATEWAY: (GatewaySettings, _import_gateway),
    CF: (CFSettings, _import_cf),
    INFERENCE: (InferenceSettings, _import_inference),
    STANDALONE: (StandaloneSettings, _import_standalone),
}


def _run(service: str, settings: ServerSettings) -> None:
    """Runs a server.

    Args:
        service: The server's name.
        settings: Its settings.
    """
    # SIGHUP reloads certificates and tokens once the server runs; until then it is ignored.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with errors_as_one_line():
        _configure_logs(service, settings)
        _, import_server = _SERVERS[service]
        serve, _ = import_server(settings)
        from marquee_services.server.releases.fork_server import ForkServer
        from marquee_services.server.runtime import run
        from marquee_services.server.telemetry import tracing

        async def serve_with_trials() -> None:
            # Without the working directory, which may contain other modules, in the module path.
            command = [sys.executable, "-P", "-m", __name__, service]
            async with ForkServer(command, asdict(settings)) as fork_server:
                await serve(settings, fork_server if settings.trial else None)

        try:
            tracing.configure(service)
        except tracing.TracingError as error:
            raise click.ClickException(str(error)) from error
        try:
            run(serve_with_trials())
        finally:
            tracing.shut_down()


def try_releases_of(service: str) -> None:
    """Loads releases on trial, as a server would load them, until the server ends.

    Args:
        service: The server's name.
    """
    from marquee_services.server.releases.trial_process import try_releases

    def prepare(values: dict[str, Any]) -> Mapping[str, TrialLoader]:
        settings_class, import_server = _SERVERS[service]
        # Without checks: the server has made them, and files that only it needs may have gone.
        settings = object.__new__(settings_class)
        settings.__dict__.update(values)
        _configure_logs(service, settings)
        _, trial_loaders = import_server(settings)
        return trial_loaders(settings)

    silence_native_logs()
    try_releases(prepare)


def _configure_logs(service: str, settings: ServerSettings) -> None:
    from marquee_services.server.telemetry.logs import configure_logs

    configure_logs(service, settings.log_format, settings.log_level)


if __name__ == "__main__":
    # Started by a server; see `_run`.
    try_releases_of(sys.argv[1])
