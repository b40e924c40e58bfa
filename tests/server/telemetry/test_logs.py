"""Logging: one line per entry, whatever peers send, and no passwords."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

import marquee
from marquee_core.redaction import redact
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from ports import free_port
from toy.release import publish_toy
from toy.waiting import PROCESS_S, WAIT_S, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
FORGED = b'\n{"event":"forged"}\n\x1b[31m'


def goaway(text: bytes) -> bytes:
    """Return an HTTP/2 GOAWAY frame with debug data (RFC 9113, section 6.8)."""
    payload = bytes(4) + (11).to_bytes(4, "big") + text
    return len(payload).to_bytes(3, "big") + bytes((7, 0, 0, 0, 0, 0)) + payload


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_peers_cannot_write_into_the_log(tmp_path: Path, log_format: str) -> None:
    """Garbage, a GOAWAY with debug data and odd metadata cannot add lines to the log."""
    log = tmp_path / "gateway.log"
    options = {"store": str(tmp_path / "empty"), "log-format": log_format}
    if log_format == "text":
        # The port is usually read from the JSON log, so here it is set.
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "marquee.cli",
            "serve",
            GATEWAY,
            f"--listen=127.0.0.1:{port}",
        ]
        with log.open("w") as stream:
            process = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())], stderr=stream
            )
        try:
            attack("127.0.0.1", port)
        finally:
            process.terminate()
            process.wait(PROCESS_S)
    else:
        gateway = ServiceProcess(GATEWAY, options, log)
        try:
            host, _, digits = gateway.address.rpartition(":")
            attack(host, int(digits))
        finally:
            gateway.stop()
    lines = log.read_text().splitlines()
    assert len(lines) >= 2
    for line in lines:
        assert "\x1b[31m" not in line
        assert "forged" not in line
        if log_format == "json":
            assert json.loads(line)["service"] == GATEWAY


def attack(host: str, port: int) -> None:
    """Send what gRPC's native library would log, and wait until the server has read it."""
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=WAIT_S)
    for data in (b"GET / HTTP/1.1\r\nX:" + FORGED + b"\r\n\r\n", PREFACE + goaway(FORGED), FORGED):
        with socket.create_connection((host, port)) as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(4096):
                pass
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for metadata in (("content-type", "text/\x1b"), ("x-forged-bin", FORGED)):
            call: Any = channel.unary_unary("/marquee.v1.RecommenderService/Recommend")
            with pytest.raises(grpc.RpcError):
                call(FORGED, timeout=WAIT_S, metadata=(metadata,))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://app:hunter2@db/x", "postgresql://app:***@db/x"),
        (
            "cannot reach 's3://key:hunter2@host:9000/b'!",
            "cannot reach 's3://key:***@host:9000/b'!",
        ),
        ("https://h/x?a=1&password=hunter2&b=2", "https://h/x?a=1&password=***&b=2"),
        ("s3://b?X-Amz-Signature=hunter2", "s3://b?X-Amz-Signature=***"),
        ("dns:///host:50051 and ipv4:1.2.3.4:5", "dns:///host:50051 and ipv4:1.2.3.4:5"),
        ("https://host:443/a@b", "https://host:443/a@b"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    """Passwords in URLs anywhere in a text are hidden, and everything else is kept."""
    assert redact(text) == shown


@pytest.mark.parametrize(("listen", "warns"), [("0.0.0.0", True), ("127.0.0.1", False)])  # noqa: S104
def test_a_server_without_access_control_logs_a_warning(
    tmp_path: Path, listen: str, warns: bool
) -> None:
    """The warning is logged at start if the server listens beyond loopback."""
    log = tmp_path / "gateway.log"
    options = {"store": str(tmp_path / "empty")}
    gateway = ServiceProcess(GATEWAY, options, log, listen=f"{listen}:0")
    gateway.stop()
    assert ("callers_not_checked" in log.read_text()) is warns


def test_no_password_of_a_url_is_logged(tmp_path: Path) -> None:
    """The passwords of the store and the feedback log are hidden when neither can be used."""
    url = "nosuchscheme://user:hunter2@store.test/x"
    command = [sys.executable, "-m", "marquee.cli", "serve", GATEWAY, f"--store={url}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 1
    assert "user:***@store.test" in ended.stderr
    assert "hunter2" not in ended.stderr

    store = ReleaseStore(str(tmp_path / "store"))
    store.promote(publish_toy(store, tmp_path / "made", backends=()).release_id)
    feedback = "postgresql://user:hunter2@127.0.0.1:1/x?sslpassword=hunter2"
    log = tmp_path / "log"
    gateway = ServiceProcess(GATEWAY, {"store": store.url, "feedback": feedback}, log)
    try:
        wait_until(lambda: "feedback_log_unavailable" in log.read_text())
        with marquee.Client(gateway.address, timeout=WAIT_S, health_check=False) as client:
            assert "hunter2" not in repr(client.status())
    finally:
        gateway.stop()
    assert "user:***@127.0.0.1" in log.read_text()
    assert "hunter2" not in log.read_text()
