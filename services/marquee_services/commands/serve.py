"""The commands `marquee serve …`, which run the servers.

Importing this module is cheap, so that `marquee --help` stays fast: each command imports what it
needs when it runs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from marquee_core.service_names import CF, GATEWAY, INFERENCE, STANDALONE
from marquee_services.cf.settings import CFSettings
from marquee_services.commands.support import errors_as_one_line
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.inference.settings import InferenceSettings
from marquee_services.server.environment import limit_blas_threads, skip_keras
from marquee_services.server.heap import keep_heap_small, limit_arenas
from marquee_services.server.options import settings_options
from marquee_services.server.settings import ServerSettings
from marquee_services.standalone.settings import StandaloneSettings

if TYPE_CHECKING:
    from marquee_services.server.releases.fork_server import ForkServer


@click.group()
def serve() -> None:
    """Run a server: the gateway, one of its backends, or all of them in one process."""
    from marquee_services.server.telemetry.logs import silence_native_logs

    silence_native_logs()


@serve.command(GATEWAY)
@settings_options(GatewaySettings, "MARQUEE_GATEWAY")
def serve_gateway(settings: GatewaySettings) -> None:
    """Run the gateway, which serves the public API.

    It implements RecommenderService and FeedbackService.
    """
    keep_heap_small()
    from marquee_services.gateway.main import fork_server, serve

    _run(GATEWAY, settings, lambda server: serve(settings, server), lambda: fork_server(settings))


@serve.command(CF)
@settings_options(CFSettings, "MARQUEE_CF")
def serve_cf(settings: CFSettings) -> None:
    """Run the CF service, a backend of the gateway.

    It implements ScoringService with NumPy and SciPy.
    """
    limit_arenas()
    limit_blas_threads(settings.blas_threads)
    from marquee_services.cf.main import fork_server, serve

    _run(CF, settings, lambda server: serve(settings, server), lambda: fork_server(settings))


@serve.command(INFERENCE)
@settings_options(InferenceSettings, "MARQUEE_INFERENCE")
def serve_inference(settings: InferenceSettings) -> None:
    """Run the inference service, a backend of the gateway.

    It implements ScoringService with NumPy, and with TensorFlow for models that need it.
    """
    skip_keras()
    limit_arenas()
    limit_blas_threads(settings.blas_threads)
    from marquee_services.inference.main import fork_server, serve

    _run(INFERENCE, settings, lambda server: serve(settings, server), lambda: fork_server(settings))


@serve.command(STANDALONE)
@settings_options(StandaloneSettings, "MARQUEE_STANDALONE")
def serve_standalone(settings: StandaloneSettings) -> None:
    """Run the gateway with both backends in one process."""
    skip_keras()
    limit_arenas()
    limit_blas_threads(settings.blas_threads)
    from marquee_services.standalone.main import fork_server, serve

    _run(
        STANDALONE, settings, lambda server: serve(settings, server), lambda: fork_server(settings)
    )


def _run(
    service: str,
    settings: ServerSettings,
    main: Callable[[ForkServer | None], Coroutine[Any, Any, None]],
    start_fork_server: Callable[[], ForkServer],
) -> None:
    from marquee_services.server.runtime import run
    from marquee_services.server.telemetry import tracing
    from marquee_services.server.telemetry.logs import configure_logs

    configure_logs(service, settings.log_format, settings.log_level)
    # SIGHUP reloads certificates and tokens once the server runs; until then it is ignored.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with errors_as_one_line():
        # Before tracing and the server start threads: a process with threads must not be forked.
        fork_server = start_fork_server() if settings.trial else None
        try:
            tracing.configure(service)
        except tracing.TracingError as error:
            raise click.ClickException(str(error)) from error
        try:
            run(main(fork_server))
        finally:
            tracing.shut_down()
