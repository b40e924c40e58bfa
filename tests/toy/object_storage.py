"""An object store for tests: moto, a server of the S3 protocol, on a local port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from locations import PROJECT, TESTS

_ENVIRONMENT = PROJECT / ".object-storage"
_START_TIMEOUT_S = 120.0
_BUCKET = "marquee"


def is_available() -> bool:
    """Return whether `make` has installed moto and s3fs."""
    return (_ENVIRONMENT / "bin" / "moto_server").exists()


class ObjectStorage:
    """A running object store with one bucket.

    Attributes:
        url: The URL of a release store in the bucket.
        environment: The environment of processes that use it, with s3fs and the server's address.
    """

    def __init__(self, port: int, log: Path) -> None:
        """Start the server and create the bucket."""
        address = f"http://127.0.0.1:{port}"
        self.url = f"s3://{_BUCKET}/store"
        (packages,) = _ENVIRONMENT.glob("lib/python*/site-packages")
        self.environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PYTHONPATH": os.pathsep.join((str(PROJECT / "services"), str(TESTS), str(packages))),
        }
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [str(_ENVIRONMENT / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
                stdout=stream,
                stderr=stream,
            )
        limit = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                request = urllib.request.Request(f"{address}/{_BUCKET}", method="PUT")  # noqa: S310
                urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
                return
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.05)

    def run(self, script: str, *arguments: str) -> str:
        """Run a Python script that may use the store, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", script, self.url, *arguments],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def suspend(self) -> None:
        """Freeze the server: connections stay open, and requests are not answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a frozen server."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop the server."""
        self.resume()
        self._process.kill()
        self._process.wait()
