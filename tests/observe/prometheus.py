"""Runs a private Prometheus server, and finds its checker `promtool`."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from locations import PROJECT
from ports import free_port

_FETCHED = PROJECT / ".prometheus" / "usr" / "bin"
_WAIT_S = 60.0
_INTERVAL_S = 0.1


def program(name: str) -> str | None:
    """Returns the path of `prometheus` or `promtool`, installed or fetched by make, or None."""
    return shutil.which(name) or shutil.which(name, path=str(_FETCHED))


@dataclass(frozen=True)
class Sample:
    """The value of a series at one time.

    Attributes:
        labels: The labels of the series.
        value: The value.
    """

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Alert:
    """An alert that is pending or firing.

    Attributes:
        name: The alert's name.
        labels: Its labels.
        state: `pending` or `firing`.
        summary: Its annotation `summary`.
    """

    name: str
    labels: Mapping[str, str]
    state: str
    summary: str


class Prometheus:
    """A Prometheus server that scrapes our servers; a context manager that stops it.

    Attributes:
        url: Its address.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, int],
        rules: Mapping[str, Any],
        scrape_interval: str = "1s",
    ) -> None:
        """Starts the server and waits until it is ready.

        Args:
            folder: Folder for its data and its log.
            targets: The metrics port of each service on the loopback interface.
            rules: The rule groups.
            scrape_interval: Interval of scrapes and of rule evaluations.

        Raises:
            RuntimeError: Prometheus is not available, or did not start.
        """
        found = program("prometheus")
        if found is None:
            raise RuntimeError("Prometheus is not available: see tests/fetch_prometheus.sh")
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._targets = folder / "targets.json"
        self.scrape([*targets.items()])
        (folder / "rules.yaml").write_text(yaml.safe_dump(dict(rules)))
        config = {
            "global": {
                "scrape_interval": scrape_interval,
                "scrape_timeout": scrape_interval,
                "evaluation_interval": scrape_interval,
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": "marquee",
                    "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
                }
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    found,
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        self._await_ready()

    def scrape(self, targets: Iterable[tuple[str, int]]) -> None:
        """Replaces the targets to scrape.

        Args:
            targets: The name and the metrics port of each service.
        """
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"service": service}}
            for service, port in targets
        ]
        # Replaced atomically, because Prometheus may be reading the file.
        temporary = self._targets.with_suffix(".new")
        temporary.write_text(json.dumps(groups))
        temporary.replace(self._targets)

    def query(self, expression: str) -> list[Sample]:
        """Evaluates an expression at the current time.

        Raises:
            ValueError: Prometheus rejects the expression.
        """
        data = self._get("query", {"query": expression})
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(r["metric"], float(r["value"][1])) for r in data["result"]]

    def has_data(self, expression: str) -> bool:
        """Returns whether an expression currently has a finite value."""
        return any(math.isfinite(sample.value) for sample in self.query(expression))

    def series(
        self, expression: str, start: float, end: float, step: float
    ) -> list[tuple[Mapping[str, str], list[tuple[float, float]]]]:
        """Evaluates an expression over a time range.

        Args:
            expression: The expression.
            start: The first time, in seconds since 1970.
            end: The last time, in seconds since 1970.
            step: Seconds between two values.

        Returns:
            The labels of each series, with its times in seconds since 1970 and its values.
        """
        parameters = {"query": expression, "start": start, "end": end, "step": step}
        result = self._get("query_range", parameters)["result"]
        return [(r["metric"], [(float(t), float(v)) for t, v in r["values"]]) for r in result]

    def alerts(self) -> list[Alert]:
        """Returns the alerts that are pending or firing."""
        found = self._get("alerts", {})["alerts"]
        return [
            Alert(
                a["labels"]["alertname"],
                a["labels"],
                a["state"],
                a["annotations"].get("summary", ""),
            )
            for a in found
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(_WAIT_S)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):  # noqa: S310
                    return
            except OSError:
                time.sleep(_INTERVAL_S)
        self._process.kill()
        self._process.wait()
        raise RuntimeError(f"Prometheus did not start:\n{self._log.read_text()[-2000:]}")

    def _get(self, what: str, parameters: Mapping[str, Any]) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {json.load(error)['error']}") from error
