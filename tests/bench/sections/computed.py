"""Recommend when no answer is kept: from the release's first pages, and when each is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bench.context import Context
from bench.processes import EchoServer
from bench.report import Table
from bench.sections import recommend
from marquee_services.processes import ServiceProcess


def measure_first_pages(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures users who are asked for the first time, again and again."""
    table = _beside(context, echo, size, {"answer-memory": "0"})
    return replace(table, title="Recommend, users asked for the first time")


def measure(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures answers that all models are scored for, as visitors' and filtered ones are."""
    table = _beside(context, echo, size, {"answer-memory": "0", "no-first-pages": None})
    return replace(table, title="Recommend, each answer computed")


def _beside(
    context: Context, echo: EchoServer, size: int, options: Mapping[str, str | None]
) -> Table:
    """Measures a second gateway in front of the same backends."""
    context.on_step("a second gateway")
    backends = context.services.processes
    targets = {f"{name}-target": backends[name].address for name in ("cf", "inference")}
    gateway = ServiceProcess(
        "gateway",
        {"store": context.store.url, **options, **targets},
        context.folder / "logs" / "gateway-beside.log",
    )
    try:
        gateway.wait_until_serving()
        beside = replace(context, services=context.services.behind(gateway))
        return recommend.measure(beside, echo, size)
    finally:
        gateway.stop()
