"""Compares Recommend with a bare echo server: throughput under load, latency without load."""

from __future__ import annotations

from bench.context import Context, median, ratios
from bench.generator import Load
from bench.http2 import GRPC_PREFIX_BYTES
from bench.processes import SERVICES, EchoServer
from bench.report import Row, Table, Target

_THROUGHPUT, _STRETCH = Target(">=", 0.35), Target(">=", 0.5)
_LATENCY = Target("<=", 4.0)
_PROBE_CALLS_S = 0.5


def answer_bytes(context: Context) -> int:
    """Returns the median size of a serialised Recommend answer in bytes."""
    load = context.recommend(context.plan(8, _PROBE_CALLS_S))
    return int(load.body_bytes) - GRPC_PREFIX_BYTES


def measure(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures the gateway and the echo server alternately over several rounds.

    Args:
        context: The services and the load generator.
        echo: The reference server.
        size: Size of both servers' answers in bytes.
    """
    config = context.config
    loaded = context.plan(config.in_flight, config.seconds)
    unloaded = context.plan(1, config.unloaded_s)
    loads: dict[str, list[Load]] = {
        name: [] for name in ("echo loaded", "gateway loaded", "echo unloaded", "gateway unloaded")
    }
    for number in range(1, config.rounds + 1):
        context.on_step(f"Recommend and echo, round {number} of {config.rounds}")
        loads["echo loaded"].append(context.echo(loaded, echo))
        loads["gateway loaded"].append(context.recommend(loaded))
        loads["echo unloaded"].append(context.echo(unloaded, echo))
        loads["gateway unloaded"].append(context.recommend(unloaded))
    gateway = [load.full_per_s for load in loads["gateway loaded"]]
    reference = [load.full_per_s for load in loads["echo loaded"]]
    ratio = median(ratios(gateway, reference))
    ours, theirs = median(gateway), median(reference)
    name = f"throughput, {config.in_flight} in flight"
    rows = [
        Row(name, ours, "/s", theirs, ratio, _THROUGHPUT),
        Row(f"{name} (stretch)", ours, "/s", theirs, ratio, _STRETCH),
    ]
    for percentile in ("p50", "p99"):
        mine = [getattr(load, f"{percentile}_s") * 1e3 for load in loads["gateway unloaded"]]
        other = [getattr(load, f"{percentile}_s") * 1e3 for load in loads["echo unloaded"]]
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
    echo_cpu = median([load.cpu_us("echo") for load in loads["echo loaded"]])
    rows += [
        Row(
            f"CPU per call, {service}, {config.in_flight} in flight",
            median([load.cpu_us(service) for load in loads["gateway loaded"]]),
            "µs",
            echo_cpu,
        )
        for service in SERVICES
    ]
    for label, key in (("gateway", "gateway loaded"), ("echo", "echo loaded")):
        rows.append(
            Row(
                f"CPU per call, load generator ({label})",
                median([1e6 * load.client_cpu_s / max(load.calls, 1) for load in loads[key]]),
                "µs",
            )
        )
        share = median([load.client_share for load in loads[key]])
        rows.append(Row(f"share of a core, load generator ({label})", 100 * share, "%"))
    notes = [f"reference: grpc.aio echo, answers of {size} bytes", *context.take_notes()]
    return Table("Recommend, cached answers", rows, notes)
