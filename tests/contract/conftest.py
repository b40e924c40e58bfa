"""The doors that the contract is held to: our gateway, and a proxy before it, or a given address.

pytest tests/contract                                      # our own, by each way in
pytest tests/contract --address HOST:PORT --user 42        # a running gateway or proxy
pytest tests/contract --address HOST:PORT --user 42 --ca ca.pem
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

import marquee

WAYS_IN = ("direct", "tls", "nginx", "haproxy")
PATIENT_S = 20.0
_UNPACKED = Path(__file__).parents[2] / ".proxies"

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
frontend door
    bind 127.0.0.1:{port} proto h2
    default_backend gateway
backend gateway
    server gateway 127.0.0.1:{gateway_port} proto h2
"""


@dataclass(frozen=True)
class Door:
    """A way in to a gateway.

    Attributes:
        address: host:port.
        ca: The authority of its certificate; None for plaintext.
        user: A user whom the release knows.
    """

    address: str
    ca: Path | None
    user: str

    def client(self, **options: Any) -> marquee.Client:
        """A client with every default but a long deadline."""
        tls = marquee.TLS(ca=self.ca) if self.ca else False
        return marquee.Client(self.address, tls=tls, **{"timeout": PATIENT_S, **options})

    def channel(self) -> grpc.Channel:
        """A plain gRPC channel."""
        if self.ca is None:
            return grpc.insecure_channel(self.address)
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(self.ca.read_bytes()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs each test by every way in, or once at the given address."""
    if "door" in metafunc.fixturenames:
        given = metafunc.config.getoption("--address")
        metafunc.parametrize("door", ("given",) if given else WAYS_IN, indirect=True)


@pytest.fixture(scope="session")
def doors(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    background_loop: Any,
) -> Iterator[dict[str, Door]]:
    """The ways in that were opened so far; `door` adds to them."""
    with ExitStack() as stack:
        yield _Doors(request, tmp_path_factory, background_loop, stack)


class _Doors(dict[str, Door]):
    """Opens a way in at its first use, and keeps it for the session."""

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

    def __missing__(self, way: str) -> Door:
        door = self._open(way)
        with door.client(wait_for_ready=True) as client:
            client.status()
        self[way] = door
        return door

    def _open(self, way: str) -> Door:
        config = self._request.config
        if way == "given":
            ca = config.getoption("--ca")
            user = config.getoption("--user") or pytest.fail("--address needs --user")
            return Door(config.getoption("--address"), Path(ca) if ca else None, user)
        services = self._request.getfixturevalue("background_services")
        if way == "direct":
            return Door(services.address, None, "u7")
        authority = self._request.getfixturevalue("authority")
        if way == "tls":
            return self._secure_gateway(services, authority)
        program = _program(way)
        folder = self._folders.mktemp(way)
        port = self._request.getfixturevalue("free_port")()
        if way == "haproxy":
            settings = _HAPROXY.format(port=port, gateway_port=services.gateway.bound.port)
            command: list[str | Path] = [program, "-db", "-f", folder / "settings"]
        else:
            certificate, key = authority.issue("127.0.0.1")
            settings = _NGINX.format(
                folder=folder,
                port=port,
                certificate=certificate,
                key=key,
                gateway_port=services.gateway.bound.port,
            )
            command = [program, "-p", folder, "-c", folder / "settings", "-e", "stderr"]
        (folder / "settings").write_text(settings)
        self._stack.enter_context(_running(command, folder / "log"))
        ca = authority.certificate if way == "nginx" else None
        return Door(f"127.0.0.1:{port}", ca, "u7")

    def _secure_gateway(self, services: Any, authority: Any) -> Door:
        certificate, key = authority.issue("localhost")
        gateway = self._loop.run(
            services.start_gateway(tls_certificate=str(certificate), tls_key=str(key))
        )
        self._stack.callback(lambda: self._loop.run(gateway.stop(0.5)))
        self._loop.run(services.until_full(gateway))
        return Door(f"localhost:{gateway.bound.port}", authority.certificate, "u7")


@pytest.fixture
def door(request: pytest.FixtureRequest, doors: dict[str, Door]) -> Door:
    """A way in to the gateway."""
    return doors[request.param]


@pytest.fixture
def client(door: Door) -> Iterator[marquee.Client]:
    """A client there."""
    with door.client() as made:
        yield made


@pytest.fixture
def channel(door: Door) -> Iterator[grpc.Channel]:
    """A plain channel there."""
    with door.channel() as opened:
        yield opened


def _program(name: str) -> Path:
    """A proxy that `make test` unpacked, or that the machine has."""
    unpacked = _UNPACKED / "usr" / "sbin" / name
    if unpacked.is_file():
        return unpacked
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is neither installed nor among this machine's Debian packages")
    return Path(found)


@contextmanager
def _running(command: list[str | Path], log: Path) -> Iterator[None]:
    """Runs a program meanwhile."""
    libraries = ":".join(map(str, (_UNPACKED / "usr" / "lib").glob("*-linux-gnu*")))
    environment: Mapping[str, str] = os.environ | {"LD_LIBRARY_PATH": libraries}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        yield
        process.terminate()
