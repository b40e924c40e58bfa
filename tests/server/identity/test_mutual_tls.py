"""Mutual TLS between client, gateway and backends, as processes with renewed certificates."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import marquee
from marquee.v1 import scoring_service_pb2 as scoring
from marquee.v1 import scoring_service_pb2_grpc
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.processes import ServiceProcess
from marquee_services.server.health import LIVE
from marquee_services.server.identity import reloading
from marquee_services.server.identity.certificates import CertificateError, Certificates
from toy.certificates import Authority
from toy.release import publish_toy
from toy.waiting import WAIT_S, until, wait_until

GATEWAY_ID = "spiffe://marquee.test/gateway"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with a release that only the CF service serves."""
    found = ReleaseStore(str(tmp_path / "store"))
    found.promote(publish_toy(found, tmp_path / "made", servable=True).release_id)
    return found.url


@pytest.fixture
def own_authority(tmp_path: Path) -> Authority:
    """An authority whose files this test may replace."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority.create(folder)


@pytest.fixture
def processes() -> Iterator[list[ServiceProcess]]:
    """Processes that are killed at the end."""
    started: list[ServiceProcess] = []
    yield started
    for process in started:
        process.kill()


def tls_options(authority: Authority, name: str) -> dict[str, str | None]:
    """Return the flags of a server that requires client certificates."""
    certificate, key = authority.issue("localhost", "127.0.0.1", file=name)
    return {
        "tls-certificate": str(certificate),
        "tls-key": str(key),
        "tls-client-ca": str(authority.certificate),
    }


def list_releases(address: str, authority: Authority, identity: tuple[Path, Path]) -> str:
    """Call the CF service with a certificate, and return the name of the status."""
    certificate, key = identity
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes()
    )
    with grpc.secure_channel(address, credentials) as channel:
        stub = scoring_service_pb2_grpc.ScoringServiceStub(channel)
        try:
            stub.ListReleases(scoring.ListReleasesRequest(), timeout=WAIT_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def test_certificates_are_renewed_under_load(
    store: str, own_authority: Authority, tmp_path: Path, processes: list[ServiceProcess]
) -> None:
    """All certificates are replaced during calls; none fails, and SIGHUP stops no process."""
    authority = own_authority
    identity = authority.issue(GATEWAY_ID, file="gateway-client")
    caller = authority.issue("caller.test", file="caller")
    cf = ServiceProcess(
        CF,
        {"store": store, **tls_options(authority, "cf"), "tls-allowed-clients": GATEWAY_ID},
        tmp_path / "cf.log",
        listen="localhost:0",
    )
    processes.append(cf)
    gateway = ServiceProcess(
        GATEWAY,
        {
            "store": store,
            **tls_options(authority, "gateway"),
            "cf-target": cf.address,
            "backend-ca": str(authority.certificate),
            "backend-cert": str(identity[0]),
            "backend-key": str(identity[1]),
            "max-connection-age": "1",
            "backend-timeout": "30",
        },
        tmp_path / "gateway.log",
        listen="localhost:0",
    )
    processes.append(gateway)
    assert list_releases(cf.address, authority, identity) == "OK"
    assert list_releases(cf.address, authority, caller) == "PERMISSION_DENIED"

    tls = marquee.TLS(ca=authority.certificate, cert=caller[0], key=caller[1])
    with marquee.Client(
        gateway.address, tls=tls, timeout=WAIT_S, wait_for_ready=True, health_check=False
    ) as client:
        wait_until(lambda: client.status().release is not None)
        wait_until(lambda: all(backend.loaded_release_ids for backend in client.status().backends))
        stop, degraded, calls, errors = threading.Event(), [], [], []

        def call() -> None:
            while not stop.is_set():
                try:
                    answer = client.recommend(ratings={"i1": 5.0, "i2": 2.0})
                except marquee.MarqueeError as error:
                    errors.append(error)
                else:
                    calls.append(answer)
                    degraded.extend([answer] if answer.source.degraded else [])

        thread = threading.Thread(target=call)
        thread.start()
        try:
            wait_until(lambda: bool(calls))
            for name in ("cf", "gateway"):
                tls_options(authority, name)
            authority.issue(GATEWAY_ID, file="gateway-client")
            authority.issue("caller.test", file="caller")
            for process in (cf, gateway):
                os.kill(process.pid, signal.SIGHUP)
            wait_until(lambda: "certificate_loaded" in (tmp_path / "cf.log").read_text())
            wait_until(lambda: "backend_reconnected" in (tmp_path / "gateway.log").read_text())
            renewed = len(calls)
            wait_until(lambda: client._settings.certificate_version() > 0)
            wait_until(lambda: len(calls) > renewed + 5)
        finally:
            stop.set()
            thread.join()
        assert not errors
        assert not [answer.source for answer in degraded]
    assert gateway.stop() == 0
    assert cf.stop() == 0


def refused_start(*options: str) -> str:
    """Start a CF service that must refuse to start, and return its output."""
    command = [sys.executable, "-m", "marquee.cli", "serve", CF, "--listen=localhost:0", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_an_expired_certificate_is_refused_at_start(own_authority: Authority) -> None:
    """The error names the file and the time, as every client would fail with this certificate."""
    certificate, key = own_authority.issue("localhost", valid_until=timedelta(hours=-1))
    output = refused_start(f"--tls-certificate={certificate}", f"--tls-key={key}")
    assert str(certificate) in output
    assert "expired at" in output


def test_a_key_of_another_certificate_is_refused(own_authority: Authority) -> None:
    """The error names the key."""
    certificate, _ = own_authority.issue("localhost")
    _, key = own_authority.issue("other.test")
    with pytest.raises(CertificateError, match=f"{key}: does not match the certificate"):
        Certificates("server", str(certificate), str(key), "")


async def test_an_unusable_renewal_keeps_the_certificate_in_use(
    own_authority: Authority,
) -> None:
    """A half-written or expired file does not replace a certificate that works."""
    certificate, key = own_authority.issue("localhost")
    served = Certificates("server", str(certificate), str(key), "")
    good = served.current
    for damage in (
        lambda: certificate.write_text("-----BEGIN CERTIFICATE-----\nabc"),
        lambda: own_authority.issue("localhost", valid_until=timedelta(hours=-1)),
        certificate.unlink,
    ):
        damage()
        served.refresh()
        assert served.current is good
    own_authority.issue("localhost")
    served.refresh()
    assert served.version == 1
    assert served.current.expires is not None


async def test_files_are_reloaded_periodically(
    own_authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are reloaded within ten seconds even without SIGHUP."""
    assert reloading.RELOAD_INTERVAL_S + GatewaySettings().probe_interval < 10
    monkeypatch.setattr(reloading, "RELOAD_INTERVAL_S", 0.01)
    certificate, key = own_authority.issue("localhost")
    served = Certificates("server", str(certificate), str(key), "")
    reloader = reloading.Reloader()
    reloader.add(served)
    task = asyncio.create_task(reloader.run())
    own_authority.issue("localhost")
    await until(lambda: served.version)
    task.cancel()


def test_the_health_port_answers_only_health_checks(services_health: Any) -> None:
    """A plaintext caller can make health checks and call no other service."""
    with grpc.insecure_channel(services_health) as channel:
        stub = scoring_service_pb2_grpc.ScoringServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.ListReleases(scoring.ListReleasesRequest(), timeout=WAIT_S)
        request = health_pb2.HealthCheckRequest(service=LIVE)
        health_pb2_grpc.HealthStub(channel).Check(request, timeout=WAIT_S)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def services_health(
    own_authority: Authority, tmp_path: Path, free_port: Callable[[], int], processes: list[Any]
) -> str:
    """The health-check address of a CF service with TLS."""
    port = free_port()
    options: dict[str, str | None] = {"store": str(tmp_path / "empty")}
    options |= {"health-port": str(port)}
    options |= tls_options(own_authority, "cf")
    processes.append(ServiceProcess(CF, options, tmp_path / "cf.log", listen="localhost:0"))
    return f"localhost:{port}"
