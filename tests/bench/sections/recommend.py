"""Recommend against a bare echo server: throughput under load, latency without."""

from __future__ import annotations

from bench.context import Context, median, ratios
from bench.generator import Load
from bench.processes import SERVICES, EchoServer
from bench.report import Row, Table, Target

_THROUGHPUT, _STRETCH = Target(">=", 0.35), Target(">=", 0.5)
_LATENCY = Target("<=", 4.0)
_PROBE_CALLS_S = 0.5


def answer_bytes(context: Context) -> int:
    """The median size of a Recommend answer, without its length."""
    load = context.recommend(context.plan(8, _PROBE_CALLS_S))
    return int(load.body_bytes) - 5


def measure(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures.

    Args:
        context: What to measure with.
        echo: The reference.
        size: Bytes of both servers' answers.
    """
    config = context.config
    busy = context.plan(config.in_flight, config.seconds)
    alone = context.plan(1, config.unloaded_s)
    loads: dict[str, list[Load]] = {name: [] for name in ("eb", "gb", "ea", "ga")}
    for number in range(1, config.rounds + 1):
        context.on_step(f"Recommend and echo, round {number} of {config.rounds}")
        loads["eb"].append(context.echo(busy, echo))
        loads["gb"].append(context.recommend(busy))
        loads["ea"].append(context.echo(alone, echo))
        loads["ga"].append(context.recommend(alone))
    gateway = [load.full_per_s for load in loads["gb"]]
    reference = [load.full_per_s for load in loads["eb"]]
    ratio = median(ratios(gateway, reference))
    ours, theirs = median(gateway), median(reference)
    name = f"throughput, {config.in_flight} in flight"
    rows = [
        Row(name, ours, "/s", theirs, ratio, _THROUGHPUT),
        Row(f"{name} (stretch)", ours, "/s", theirs, ratio, _STRETCH),
    ]
    for percentile in ("p50", "p99"):
        mine = [getattr(load, f"{percentile}_s") * 1e3 for load in loads["ga"]]
        other = [getattr(load, f"{percentile}_s") * 1e3 for load in loads["ea"]]
        rows.append(
            Row(
                f"unloaded {percentile}",
                median(mine),
                "ms",
                median(other),
                median(ratios(mine, other)),
                _LATENCY,
            )
        )
    echo_cpu = median([load.cpu_us("echo") for load in loads["eb"]])
    rows += [
        Row(
            f"CPU a call, {service}, {config.in_flight} in flight",
            median([load.cpu_us(service) for load in loads["gb"]]),
            "µs",
            echo_cpu,
        )
        for service in SERVICES
    ]
    for label, key in (("gateway", "gb"), ("echo", "eb")):
        rows.append(
            Row(
                f"CPU a call, load generator ({label})",
                median([1e6 * load.client_cpu_s / max(load.calls, 1) for load in loads[key]]),
                "µs",
            )
        )
        share = median([load.client_share for load in loads[key]])
        rows.append(Row(f"share of a core, load generator ({label})", 100 * share, "%"))
    notes = [f"reference: grpc.aio echo, answers of {size} bytes", *context.take_notes()]
    return Table("Recommend, users who were asked for before", rows, notes)
