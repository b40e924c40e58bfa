"""Recommend to users whose answers the gateway still has.

The other sections are measured with a gateway that keeps no answers: a load that asks for the same
users again and again would else measure the memory and not the models.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from bench.context import Context, median, ratios
from bench.processes import EchoServer, memory_of
from bench.report import Row, Table
from marquee_services.gateway.settings import GatewaySettings
from marquee_trainer.processes import ServiceProcess

_SETTING = "answer_memory"


def keeps_answers() -> bool:
    """Whether the gateway can keep answers at all."""
    return _SETTING in {field.name for field in fields(GatewaySettings)}


def without_kept_answers() -> dict[str, str]:
    """The gateway's options with which it computes each answer."""
    return {_SETTING.replace("_", "-"): "0"} if keeps_answers() else {}


def measure(context: Context, echo: EchoServer) -> Table:
    """Measures a second gateway, in front of the same backends, that keeps answers."""
    title, config = "Recommend, answers kept", context.config
    busy, alone = context.plan(config.in_flight, config.seconds), context.plan(1, config.unloaded_s)
    if not keeps_answers():
        nan = float("nan")
        row = Row(f"throughput, {config.in_flight} in flight", nan, "/s", nan, nan)
        return Table(title, [row], ["this gateway keeps no answers"])
    context.on_step("a gateway that keeps answers")
    backends = context.services.processes
    gateway = ServiceProcess(
        "gateway",
        {
            "store": context.store.url,
            **{f"{name}-target": backends[name].address for name in ("cf", "inference")},
        },
        context.folder / "logs" / "gateway-kept.log",
    )
    found: dict[str, list[float]] = {name: [] for name in ("busy", "p50", "p99")}
    reference: dict[str, list[float]] = {name: [] for name in found}
    try:
        gateway.wait_until_serving()
        # All users once, so that what is kept is kept.
        first = replace(busy, seconds=0.0, calls=len(context.user_ids))
        for plan in (first, *[busy, alone] * config.rounds):
            here = replace(plan, address=gateway.address)
            load = context.generator.run(
                here, context.requests, {"gateway": gateway.pid}, "recommend"
            )
            if plan is first:
                continue
            context.check(f"kept answers, {plan.in_flight} in flight", load)
            other = context.echo(plan, echo)
            if plan is busy:
                found["busy"].append(load.full_per_s)
                reference["busy"].append(other.full_per_s)
            else:
                for name in ("p50", "p99"):
                    found[name].append(getattr(load, f"{name}_s") * 1e3)
                    reference[name].append(getattr(other, f"{name}_s") * 1e3)
        memory = memory_of(gateway.pid, Path(context.store.url))
    finally:
        gateway.stop()
    labels = {"busy": (f"throughput, {config.in_flight} in flight", "/s")}
    labels |= {name: (f"unloaded {name}", "ms") for name in ("p50", "p99")}
    rows = [
        Row(
            label,
            median(found[name]),
            unit,
            median(reference[name]),
            median(ratios(found[name], reference[name])),
        )
        for name, (label, unit) in labels.items()
    ]
    rows.append(Row("gateway: RSS", memory.resident / 1e6, "MB"))
    notes = [f"for information: {len(context.user_ids):,} users, all of whom were asked before"]
    return Table(title, rows, [*notes, *context.take_notes()])
