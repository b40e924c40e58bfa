"""The audit reports known vulnerabilities from OSV's service and from a copy of its database."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from audit.__main__ import main
from locations import PROJECT

CONSTRAINTS = "# a comment\nSafe_Package==1.0\nbad-package==2.1 ; python_version > '3'\n"


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    """A file that pins two versions."""
    file = tmp_path / "constraints.txt"
    file.write_text(CONSTRAINTS)
    return file


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    """A file without accepted advisories."""
    file = tmp_path / "accepted.toml"
    file.write_text("")
    return file


@pytest.fixture
def service() -> Iterator[str]:
    """A server that imitates OSV: the second package has an advisory."""

    class OSV(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            names = [query["package"]["name"] for query in body["queries"]]
            assert names == ["safe-package", "bad-package"]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": [{}, {"vulns": [{"id": "X-1"}]}]}).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
            pass

    server = HTTPServer(("127.0.0.1", 0), OSV)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_advisory_fails_the_audit_until_it_is_accepted(
    constraints: Path, accepted: Path, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An accepted advisory does not fail the audit, and its reason is printed."""
    assert main([str(constraints)], service, accepted) == 1
    assert "bad-package 2.1 X-1 VULNERABLE" in capsys.readouterr().out
    accepted.write_text('"X-1" = "not used"')
    assert main([str(constraints)], service, accepted) == 0
    assert "accepted: not used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("events", "affected"),
    [
        ([{"introduced": "0"}], True),
        ([{"introduced": "0"}, {"fixed": "2.1"}], False),
        ([{"introduced": "2.0"}, {"fixed": "2.1.post1"}], True),
        ([{"introduced": "0"}, {"last_affected": "2.1"}], True),
        ([{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "3.0"}], False),
    ],
)
def test_the_database_is_read_without_a_network(
    constraints: Path, accepted: Path, tmp_path: Path, events: Any, affected: bool
) -> None:
    """Version ranges are evaluated as the OSV schema defines, and withdrawn advisories ignored."""
    database = tmp_path / "all.zip"
    package = {"name": "Bad_Package", "ecosystem": "PyPI"}
    entry = {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    with zipfile.ZipFile(database, "w") as archive:
        archive.writestr("X-1.json", json.dumps({"id": "X-1", "affected": [entry]}))
        gone = {"id": "X-2", "withdrawn": "2026-01-01T00:00:00Z", "affected": [entry]}
        archive.writestr("X-2.json", json.dumps(gone))
    found = main([str(constraints), f"--database={database}"], "http://127.0.0.1:1", accepted)
    assert found == int(affected)


def test_an_audit_without_network_and_database_is_reported_as_such(
    constraints: Path, accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An audit that did not take place is not reported as one without findings."""
    assert main([str(constraints)], "http://127.0.0.1:1", accepted) == 0
    assert "NOT AUDITED" in capsys.readouterr().out


def test_every_pinned_version_has_digests() -> None:
    """Installers can verify the pinned packages from any index."""
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pinned = [place for place, line in enumerate(lines) if "==" in line]
    assert pinned
    assert all(lines[place + 1].strip().startswith("--hash=sha256:") for place in pinned)
    assert not any("://" in line for line in lines)
