"""The endpoints that the contract tests call: a gateway, proxies in front of it, or an address.

pytest tests/contract                                      # the project's gateway, in four ways
pytest tests/contract --address HOST:PORT --user 42        # a running gateway or proxy
pytest tests/contract --address HOST:PORT --user 42 --ca ca.pem
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

import marquee
from proxies import overload_proxy, program, running

ROUTES = ("direct", "tls", "nginx", "haproxy", "overload-proxy")
# Generous deadline of a call in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 120.0

_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        client_max_body_size 4m;
        location / {{ grpc_pass grpc://127.0.0.1:{gateway_port}; }}
    }}
}}
"""
_HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend proxy
    bind 127.0.0.1:{port} proto h2
    default_backend gateway
backend gateway
    server gateway 127.0.0.1:{gateway_port} proto h2
"""


@dataclass(frozen=True)
class Endpoint:
    """An address at which a gateway can be called.

    Attributes:
        address: The address, `host:port`.
        ca: The PEM file of the certificate authority of the server; None for plaintext.
        user: The id of a user that the release knows.
    """

    address: str
    ca: Path | None
    user: str

    def client(self, **options: Any) -> marquee.Client:
        """Return a client with the default settings, except for the deadlines."""
        tls = marquee.TLS(ca=self.ca) if self.ca else False
        deadlines = {"timeout": DEADLINE_S, "batch_timeout": DEADLINE_S}
        return marquee.Client(self.address, tls=tls, **(deadlines | options))

    def channel(self) -> grpc.Channel:
        """Return a plain gRPC channel."""
        if self.ca is None:
            return grpc.insecure_channel(self.address)
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(self.ca.read_bytes()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over every route, or once at the given address."""
    if "endpoint" in metafunc.fixturenames:
        given = metafunc.config.getoption("--address")
        metafunc.parametrize("endpoint", ("given",) if given else ROUTES, indirect=True)


@pytest.fixture(scope="session")
def endpoints(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    background_loop: Any,
) -> Iterator[dict[str, Endpoint]]:
    """The endpoints by route, each started on first use."""
    with ExitStack() as stack:
        yield _Endpoints(request, tmp_path_factory, background_loop, stack)


class _Endpoints(dict[str, Endpoint]):
    """Starts an endpoint on first use, and stops it at the end of the session."""

    def __init__(
        self,
        request: pytest.FixtureRequest,
        folders: pytest.TempPathFactory,
        loop: Any,
        stack: ExitStack,
    ) -> None:
        super().__init__()
        self._request = request
        self._loop = loop
        self._folders = folders
        self._stack = stack

    def __missing__(self, route: str) -> Endpoint:
        endpoint = self._start(route)
        with endpoint.client(wait_for_ready=True) as client:
            client.status()
        self[route] = endpoint
        return endpoint

    def _start(self, route: str) -> Endpoint:
        config = self._request.config
        if route == "given":
            ca = config.getoption("--ca")
            user = config.getoption("--user") or pytest.fail("--address needs --user")
            return Endpoint(config.getoption("--address"), Path(ca) if ca else None, user)
        services = self._request.getfixturevalue("background_services")
        if route == "direct":
            return Endpoint(services.address, None, "u7")
        authority = self._request.getfixturevalue("authority")
        if route == "tls":
            return self._start_tls_gateway(services, authority)
        folder = self._folders.mktemp(route)
        if route == "overload-proxy":
            _program("haproxy")
            gateway_address = f"127.0.0.1:{services.gateway.bound.port}"
            proxy = self._stack.enter_context(overload_proxy(gateway_address, folder))
            return Endpoint(proxy.address, None, "u7")
        executable = _program(route)
        port = self._request.getfixturevalue("free_port")()
        if route == "haproxy":
            settings = _HAPROXY.format(port=port, gateway_port=services.gateway.bound.port)
            command: list[str | Path] = [executable, "-db", "-f", folder / "settings"]
        else:
            certificate, key = authority.issue("127.0.0.1")
            settings = _NGINX.format(
                folder=folder,
                port=port,
                certificate=certificate,
                key=key,
                gateway_port=services.gateway.bound.port,
            )
            command = [executable, "-p", folder, "-c", folder / "settings", "-e", "stderr"]
        (folder / "settings").write_text(settings)
        self._stack.enter_context(running(command, folder / "log"))
        ca = authority.certificate if route == "nginx" else None
        return Endpoint(f"127.0.0.1:{port}", ca, "u7")

    def _start_tls_gateway(self, services: Any, authority: Any) -> Endpoint:
        certificate, key = authority.issue("localhost")
        gateway = self._loop.run(
            services.start_gateway(tls_certificate=str(certificate), tls_key=str(key))
        )
        self._stack.callback(lambda: self._loop.run(gateway.stop(0.5)))
        self._loop.run(services.until_full(gateway))
        return Endpoint(f"localhost:{gateway.bound.port}", authority.certificate, "u7")


@pytest.fixture
def endpoint(request: pytest.FixtureRequest, endpoints: dict[str, Endpoint]) -> Endpoint:
    """The endpoint under test."""
    return endpoints[request.param]


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[marquee.Client]:
    """A client of the endpoint."""
    with endpoint.client() as opened:
        yield opened


@pytest.fixture
def channel(endpoint: Endpoint) -> Iterator[grpc.Channel]:
    """A plain gRPC channel to the endpoint."""
    with endpoint.channel() as opened:
        yield opened


def _program(name: str) -> Path:
    """Return the path of a proxy, or skip the test if this machine has none."""
    found = program(name)
    if found is None:
        pytest.skip(f"{name} is neither installed nor among this machine's Debian packages")
    return found
