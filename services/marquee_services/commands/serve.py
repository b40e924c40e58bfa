"""The commands `marquee serve …`, which run the servers.

Importing this module is cheap, so that `marquee --help` stays fast: each command imports what it
needs when it runs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Mapping
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
    keep_heap_small()

    def import_server() -> _Server:
        from marquee_services.gateway.main import serve, trial_loaders

        return serve, trial_loaders

    _run(GATEWAY, settings, import_server)


@serve.command(CF)
@settings_options(CFSettings, "MARQUEE_CF")
def serve_cf(settings: CFSettings) -> None:
    """Run the CF service, a backend of the gateway.

    It implements ScoringService with NumPy and SciPy.
    """
    limit_arenas()
    limit_blas_threads(settings.blas_threads)

    def import_server() -> _Server:
        from marquee_services.cf.main import serve, trial_loaders

        return serve, trial_loaders

    _run(CF, settings, import_server)


@serve.command(INFERENCE)
@settings_options(InferenceSettings, "MARQUEE_INFERENCE")
def serve_inference(settings: InferenceSettings) -> None:
    """Run the inference service, a backend of the gateway.

    It implements ScoringService with NumPy, and with TensorFlow for models that need it.
    """
    skip_keras()
    limit_arenas()
    limit_blas_threads(settings.blas_threads)

    def import_server() -> _Server:
        from marquee_services.inference.main import serve, trial_loaders

        return serve, trial_loaders

    _run(INFERENCE, settings, import_server)


@serve.command(STANDALONE)
@settings_options(StandaloneSettings, "MARQUEE_STANDALONE")
def serve_standalone(settings: StandaloneSettings) -> None:
    """Run the gateway with both backends in one process."""
    skip_keras()
    limit_arenas()
    limit_blas_threads(settings.blas_threads)

    def import_server() -> _Server:
        from marquee_services.standalone.main import serve, trial_loaders

        return serve, trial_loaders

    _run(STANDALONE, settings, import_server)


def _run(service: str, settings: ServerSettings, import_server: Callable[[], _Server]) -> None:
    """Runs a server.

    Args:
        service: The server's name.
        settings: Its settings.
        import_server: Imports the server, and returns the coroutine function that serves and the
            function that returns its loaders for trials.
    """
    from marquee_services.server.releases.trial_process import fork_for_trials

    def prepare_trials() -> Mapping[str, TrialLoader]:
        _configure_logs(service, settings)
        _, trial_loaders = import_server()
        return trial_loaders(settings)

    # SIGHUP reloads certificates and tokens once the server runs; until then it is ignored.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with errors_as_one_line():
        # Before the server imports its libraries, so that the process stays small, and before
        # anything starts threads: a process with threads must not be forked.
        forked = fork_for_trials(prepare_trials) if settings.trial else None
        _configure_logs(service, settings)
        from marquee_services.server.releases.fork_server import ForkServer
        from marquee_services.server.runtime import run
        from marquee_services.server.telemetry import tracing

        serve, _ = import_server()
        try:
            tracing.configure(service)
        except tracing.TracingError as error:
            raise click.ClickException(str(error)) from error
        try:
            run(serve(settings, None if forked is None else ForkServer(*forked)))
        finally:
            tracing.shut_down()


def _configure_logs(service: str, settings: ServerSettings) -> None:
    from marquee_services.server.telemetry.logs import configure_logs

    configure_logs(service, settings.log_format, settings.log_level)
