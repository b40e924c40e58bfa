"""Measures what tracing adds to the CPU time of a cached answer.

Without the `OTEL_*` variables that turn tracing on, OpenTelemetry is not imported. The reference is
a gateway for which OpenTelemetry is not installed, so the first row shows that being able to trace
costs nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

from bench.context import Context, median, ratios
from bench.generator import Load
from bench.report import Row, Table, Target
from bench.sections.computed import second_gateway
from marquee_core.service_names import GATEWAY

_OFF = Target("<=", 1.1)
_ABSENT, _TRACED = "OpenTelemetry not installed", "every call is traced"


class _Collector(BaseHTTPRequestHandler):
    """Accepts spans by OTLP over HTTP, and discards them."""

    def do_POST(self) -> None:
        """Reads a batch of spans."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def measure(context: Context) -> Table:
    """Measures gateways that differ only in their tracing, alternately over several rounds."""
    config = context.config
    with ExitStack() as stack:
        collector = stack.enter_context(_collector())
        settings: dict[str, Mapping[str, str]] = {
            _ABSENT: {"PYTHONPATH": _without_opentelemetry(context.folder)},
            "tracing is off": {},
            "tracing is on, but no call is sampled": {
                **collector,
                "OTEL_TRACES_SAMPLER": "parentbased_always_off",
            },
            _TRACED: collector,
        }
        gateways = {}
        for name, environment in settings.items():
            with patch.dict(os.environ, environment):
                gateways[name] = stack.enter_context(second_gateway(context, {}))
            fill = gateways[name].plan(config.in_flight, 0.0)
            gateways[name].recommend(replace(fill, calls=len(context.user_ids)))
        loads: dict[str, list[Load]] = {name: [] for name in gateways}
        for number in range(1, config.rounds + 1):
            context.on_step(f"tracing, round {number} of {config.rounds}")
            for name, gateway in gateways.items():
                loads[name].append(_load(gateway))
    costs = {name: [load.cpu_us(GATEWAY) for load in found] for name, found in loads.items()}
    reference = costs[_ABSENT]
    rows = [
        Row(
            f"CPU per call, gateway, {name}",
            median(cost),
            "µs",
            median(reference),
            median(ratios(cost, reference)),
            _OFF if name == "tracing is off" else None,
        )
        for name, cost in costs.items()
        if name != _ABSENT
    ]
    return Table("Tracing", rows, [f"reference: {_ABSENT}", *context.take_notes()])


def _load(gateway: Context) -> Load:
    return gateway.recommend(gateway.plan(gateway.config.in_flight, gateway.config.seconds))


def _without_opentelemetry(folder: Path) -> str:
    """Makes a folder that hides OpenTelemetry from the processes that have it on their path."""
    package = folder / "without-opentelemetry" / "opentelemetry"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError('opentelemetry')\n")
    path = str(package.parent)
    inherited = os.environ.get("PYTHONPATH")
    return f"{path}{os.pathsep}{inherited}" if inherited else path


@contextmanager
def _collector() -> Iterator[dict[str, str]]:
    """Runs a collector; yields the variables that make servers export their spans to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
