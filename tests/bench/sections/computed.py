"""Recommend without cached answers: precomputed with the release, and computed on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bench.context import Context
from bench.processes import EchoServer
from bench.report import Table
from bench.sections import recommend
from marquee_core.service_names import BACKENDS
from marquee_services.processes import ServiceProcess


def measure_precomputed(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures answers that are precomputed with the release, with caching switched off."""
    table = _with_gateway_options(context, echo, size, {"answer-cache-mib": "0"})
    return replace(table, title="Recommend, precomputed answers")


def measure(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures answers that need the scores of all models, such as those for visitors."""
    table = _with_gateway_options(
        context, echo, size, {"answer-cache-mib": "0", "no-precomputed-pages": None}
    )
    return replace(table, title="Recommend, computed answers")


def _with_gateway_options(
    context: Context, echo: EchoServer, size: int, options: Mapping[str, str | None]
) -> Table:
    """Measures a second gateway with other flags, in front of the same backends."""
    context.on_step("start a second gateway")
    backends = context.services.processes
    targets = {f"{name}-target": backends[name].address for name in BACKENDS}
    gateway = ServiceProcess(
        "gateway",
        {"store": context.store.url, **options, **targets},
        context.folder / "logs" / "gateway-options.log",
    )
    try:
        gateway.wait_until_serving()
        changed = replace(context, services=context.services.behind(gateway))
        return recommend.measure(changed, echo, size)
    finally:
        gateway.stop()
