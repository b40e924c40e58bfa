"""Starts and stops a gRPC server with health checks, reflection and the interceptor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
import uvloop
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marquee_services.server import background
from marquee_services.server.admission.calls import CallLimits, CallsInProgress
from marquee_services.server.admission.early_admission import EarlyAdmission, no_early_admission
from marquee_services.server.admission.request_limits import RequestLimits
from marquee_services.server.connections.descriptors import limit_connections
from marquee_services.server.draining import Drain
from marquee_services.server.health import Health
from marquee_services.server.heap import collect_rarely
from marquee_services.server.identity.access import AccessControl
from marquee_services.server.identity.certificates import Certificates
from marquee_services.server.identity.reloading import Reloader
from marquee_services.server.interceptor import CallInterceptor, Shortcut
from marquee_services.server.method_table import MethodTable
from marquee_services.server.settings import ServerSettings, host_of, is_loopback
from marquee_services.server.state_metrics import certificate_metrics
from marquee_services.server.telemetry.metrics import Metrics
from marquee_services.server.thread_pool import started_pool

_log = structlog.get_logger()

# Large enough for a backend's scores of the whole catalogue for a batch of users.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_UNCHECKED = "anyone who can reach this address is served: callers need no token or certificate"
_MIN_PING_INTERVAL_MS = 500
_MAX_PENDING = 10_000
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 30_000, 20_000
# The time at the end of the grace in which the remaining calls are ended.
_ENDING_S = 0.5
_MAX_HEALTH_CONNECTIONS, _HEALTH_IDLE_MS = 64, 60_000
_WORKER_THREADS = 2


@dataclass(frozen=True)
class BoundServer:
    """A listening server with its health service and metrics.

    Attributes:
        server: The gRPC server.
        port: The port that the server listens on; 0 for a Unix socket.
        metrics: The server's metrics.
        calls: The calls in progress.
        reloader: Reads certificates and tokens again when their files change.
        health_port: The port of the separate listener for health checks; 0 if there is none.
    """

    server: grpc.aio.Server
    port: int
    metrics: Metrics
    calls: CallsInProgress
    reloader: Reloader
    health_port: int
    _drain: Drain
    _health: Health
    _health_server: grpc.aio.Server | None
    _reloading: asyncio.Task[None]

    @property
    def is_serving(self) -> bool:
        """Whether the health status is SERVING."""
        return self._health.is_serving

    async def set_serving(self, serving: bool) -> None:
        """Sets the health status to SERVING or NOT_SERVING."""
        await self._health.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Shuts the server down gracefully.

        The health status becomes NOT_SERVING, and calls in progress finish. Calls that are still in
        progress shortly before the end of the grace end with the error `Draining`: gRPC would end
        them with CANCELLED and without details, which says nothing about whether to try again.

        Args:
            grace: Seconds that calls in progress have to finish.
        """
        end = time.monotonic() + grace
        await self._health.drain()
        self.calls.draining.set()
        is_watched = self._health.watchers > 0
        await self._drain.hand_over(max(0.0, grace - _ENDING_S), is_watched, self.port)
        left = max(0.0, end - time.monotonic())
        stopping = asyncio.ensure_future(self.server.stop(left))
        await asyncio.wait([stopping], timeout=max(0.0, left - min(_ENDING_S, left / 2)))
        self._drain.end_open()
        await stopping
        if self._health_server is not None:
            await self._health_server.stop(0)
        self._reloading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reloading


async def create_server(
    settings: ServerSettings,
    services: Sequence[str],
    add_servicers: Callable[[grpc.aio.Server], None],
    metrics: Metrics,
    max_receive_bytes: int = MAX_MESSAGE_BYTES,
    access: AccessControl | None = None,
    reloader: Reloader | None = None,
    probes: frozenset[str] = frozenset(),
    request_limits: Mapping[str, RequestLimits] | None = None,
    exempt: frozenset[str] = frozenset(),
    early_admission: EarlyAdmission = no_early_admission,
    guarded: bool = True,
    shortcuts: Mapping[str, Shortcut] | None = None,
) -> BoundServer:
    """Creates and starts a server with health checks, reflection and the interceptor.

    The health status is NOT_SERVING until `BoundServer.set_serving` is called.

    Args:
        settings: The server's address, limits and TLS files.
        services: Full names of the gRPC services.
        add_servicers: Adds their servicers to the server.
        metrics: Receives the metrics of calls.
        max_receive_bytes: Largest request that is accepted, in bytes.
        access: Decides which calls are accepted; None to check only `settings.allowed_clients`.
        reloader: Reloads changed files; None to create a new one.
        probes: Names of methods that only query the server's state, and do not count as calls.
        request_limits: The limits on the elements of a request, by the method's name.
        exempt: Names of methods that are answered even beyond the limit of calls.
        early_admission: Returns the context in which a call to a method is queued before its
            request is read, or None.
        guarded: Whether connections with too many abandoned calls are ended.
        shortcuts: Answer repeated requests without parsing them, by the method's name.

    Raises:
        CertificateError: The server's certificate cannot be used.
        OSError: The server cannot listen on its address.
    """
    if access is None and settings.allowed_clients:
        access = AccessControl(settings.allowed_clients)
    callers_are_checked = access is not None and access.checks_callers
    reloader = reloader or Reloader()
    methods = MethodTable()
    interceptor = CallInterceptor(
        methods,
        tuple(f"/{service}/" for service in services),
        CallLimits(
            settings.max_calls,
            settings.max_batches,
            settings.default_deadline,
            settings.max_deadline,
            settings.receive_timeout,
            settings.stall_timeout,
            exempt,
            guarded,
        ),
        metrics,
        access,
        probes,
        request_limits,
        early_admission,
        shortcuts,
    )
    server = grpc.aio.server(
        options=(
            *_age_options(settings),
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", max_receive_bytes),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_allowed_incoming_connections", limit_connections(settings.max_connections)),
            ("grpc.max_concurrent_streams", settings.max_streams),
            # A peer that has vanished, or does not read from its socket, answers no pings.
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            # Refuse streams beyond the limit immediately; gRPC would delay each by up to a second.
            ("grpc.http.tarpit", 0),
            # Ended streams count until they are freed, which their client cannot observe. The
            # second option allows this many in addition to the limit of streams.
            ("grpc.http.overload_protection", 1),
            ("grpc.http2.max_deallocating_streams", settings.max_ended_streams),
            ("grpc.max_connection_idle_ms", int(settings.max_connection_idle * 1000)),
            # The interceptor refuses calls with a reason. Beyond this number of calls that it has
            # not handed over yet, gRPC ends them with CANCELLED; its default is a thousand.
            ("grpc.server.max_pending_requests", _MAX_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
            # Clients send keepalive pings to detect a frozen server; they must not be refused.
            ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ("grpc.http2.max_ping_strikes", 0),
        ),
    )
    server.add_generic_rpc_handlers((interceptor,))
    add_servicers(methods.as_server)
    health_servicer = Health(services)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, methods.as_server)
    if settings.reflection == "on" or (settings.reflection == "auto" and not callers_are_checked):
        names: Sequence[str] = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, methods.as_server)
    await health_servicer.start()
    port = _listen(server, settings, reloader, metrics)
    health_server, health_port = _listen_for_health_checks(settings, health_servicer)
    bound = BoundServer(
        server,
        port,
        metrics,
        interceptor.calls,
        reloader,
        health_port,
        interceptor.drain,
        health_servicer,
        health_server,
        asyncio.create_task(reloader.run()),
    )
    metrics.serve(settings.metrics_port, host_of(settings.listen).strip("[]"))
    await server.start()
    if health_server is not None:
        await health_server.start()
    if not (callers_are_checked or settings.tls_client_ca or is_loopback(settings.listen)):
        _log.warning("callers_not_checked", address=settings.listen, why=_UNCHECKED)
    _log.info("listening", address=settings.listen, port=port, health_port=health_port)
    return bound


def _age_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Returns the options that limit the age of connections; gRPC varies it by 10 %."""
    if not settings.max_connection_age:
        return []
    return [
        ("grpc.max_connection_age_ms", int(settings.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace * 1000)),
    ]


def _listen(
    server: grpc.aio.Server, settings: ServerSettings, reloader: Reloader, metrics: Metrics
) -> int:
    """Returns the port; 0 for a Unix socket."""
    is_unix = settings.listen.startswith("unix")  # gRPC then returns 1 as the port.
    if not settings.tls_certificate:
        port = _bind(settings.listen, server.add_insecure_port, settings.listen)
        return 0 if is_unix else port
    certificates = Certificates(
        "server", settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    )
    reloader.add(certificates)
    metrics.read_on_scrape(certificate_metrics((certificates,)))
    credentials = certificates.server_credentials()
    port = _bind(settings.listen, server.add_secure_port, settings.listen, credentials)
    return 0 if is_unix else port


def _listen_for_health_checks(
    settings: ServerSettings, servicer: Health
) -> tuple[grpc.aio.Server | None, int]:
    """Creates a server for health checks in plaintext; returns it and its port, or None and 0."""
    if not settings.health_port:
        return None, 0
    options = (
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", _MAX_HEALTH_CONNECTIONS),
        ("grpc.max_connection_idle_ms", _HEALTH_IDLE_MS),
    )
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=64)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"{host_of(settings.listen)}:{settings.health_port}"
    return server, _bind(address, server.add_insecure_port, address)


def _bind(address: str, add: Callable[..., int], *arguments: Any) -> int:
    try:
        return add(*arguments)
    except RuntimeError as error:
        # gRPC does not report the cause.
        raise OSError(
            f"cannot listen on {address}: the address is in use, does not belong to this machine, "
            "or has no port"
        ) from error


async def until_signalled(reload: Callable[[], None] = lambda: None) -> None:
    """Waits for SIGTERM or SIGINT.

    Args:
        reload: Called on SIGHUP, in the event loop.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await stop.wait()
    _log.info("shutting_down")


def methods_of(*services: ServiceDescriptor) -> list[str]:
    """Returns the full names, `package.Service/Method`, of the methods of services."""
    return [
        f"{service.full_name}/{method.name}" for service in services for method in service.methods
    ]


async def _with_worker_threads(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine with the threads for `asyncio.to_thread`, which is called rarely."""
    asyncio.get_running_loop().set_default_executor(started_pool("worker", _WORKER_THREADS))
    await main


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a server's main coroutine on uvloop.

    uvloop halves the CPU time of the calls from the gateway to its backends.
    """
    collect_rarely()
    uvloop.run(_with_worker_threads(main))
    if background.is_busy():
        # A hanging call, such as to an unreachable store, must not keep the process alive.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
