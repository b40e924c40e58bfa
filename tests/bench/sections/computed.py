"""Recommend when no answer is kept: what a user costs the models the first time."""

from __future__ import annotations

from dataclasses import replace

from bench.context import Context
from bench.processes import EchoServer
from bench.report import Table
from bench.sections import recommend
from marquee_trainer.processes import ServiceProcess


def measure(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures a second gateway, in front of the same backends, that keeps no answers."""
    context.on_step("a gateway that keeps no answers")
    backends = context.services.processes
    options = {f"{name}-target": backends[name].address for name in ("cf", "inference")}
    gateway = ServiceProcess(
        "gateway",
        {"store": context.store.url, "answer-memory": "0", **options},
        context.folder / "logs" / "gateway-computing.log",
    )
    try:
        gateway.wait_until_serving()
        beside = replace(context, services=context.services.behind(gateway))
        table = recommend.measure(beside, echo, size)
    finally:
        gateway.stop()
    return replace(table, title="Recommend, each answer computed")
