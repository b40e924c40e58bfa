"""Measures Recommend with a growing number of calls in flight.

Throughput counts full answers. It rises with the number of calls in flight up to a peak, and must
not fall beyond it.
"""

from __future__ import annotations

from bench.context import Context, median
from bench.generator import Load
from bench.processes import EchoServer
from bench.report import Row, Table, Target

_FLAT = Target(">=", 0.85)
_NO_ERRORS = Target("<=", 0)
# At constant throughput, latency is proportional to the number of calls in flight (Little's law).
# The target allows for a throughput of 0.85 of the peak.
_LINEAR = Target("<=", 1 / 0.85)
# The share of the peak from which the gateway counts as saturated.
_SATURATED = 0.9


def measure(context: Context, echo: EchoServer) -> Table:
    """Measures all levels in turn over several rounds, and the echo server once.

    Raises:
        RuntimeError: No call returned a full answer.
    """
    config = context.config
    loads: dict[int, list[Load]] = {level: [] for level in config.levels}
    for number in range(1, config.sweep_rounds + 1):
        for level in config.levels:
            context.on_step(f"{level} in flight, round {number} of {config.sweep_rounds}")
            plan = context.plan(level, config.seconds)
            loads[level].append(context.recommend(plan))
    reference = []
    for level in config.levels:
        context.on_step(f"echo, {level} in flight")
        reference.append(context.echo(context.plan(level, config.seconds), echo))
    throughput = {level: median([x.full_per_s for x in found]) for level, found in loads.items()}
    peak = max(throughput.values())
    if not peak:
        raise RuntimeError(f"no call returned a full answer: {context.take_notes()}")
    first = min(level for level in config.levels if throughput[level] >= _SATURATED * peak)
    top = max(config.levels, key=throughput.__getitem__)
    last = config.levels[-1]
    rows = []
    for level in config.levels:
        ratio = throughput[level] / peak
        rows.append(Row(f"throughput, {level} in flight", throughput[level], "/s", peak, ratio))
    single, highest = reference[0].full_per_s, max(load.full_per_s for load in reference)
    rows.append(Row(f"echo, {config.levels[0]} in flight", single, "/s", highest, single / highest))
    least = min(throughput[level] for level in config.levels if level >= top)
    rows.append(
        Row(
            f"lowest throughput at and beyond the peak ({top} in flight)",
            least,
            "/s",
            peak,
            least / peak,
            _FLAT,
        )
    )
    faults = sum(load.faults for found in loads.values() for load in found)
    rows.append(Row("errors and degraded answers", faults, "", target=_NO_ERRORS))
    notes = context.take_notes()
    # A degraded answer waits at most for the backends' timeout, so its latency is too low.
    latency_is_cut = any(load.faults for load in (*loads[first], *loads[last]))
    if latency_is_cut:
        notes.append("latency growth is not measured, because answers were degraded")
    for percentile in ("p50", "p99"):
        at = {
            level: median([getattr(load, f"{percentile}_s") * 1e3 for load in found])
            for level, found in loads.items()
        }
        growth = float("nan") if latency_is_cut else (at[last] / at[first]) / (last / first)
        name = f"{percentile} growth from {first} to {last} in flight, relative to linear"
        rows.append(Row(name, at[last], "ms", at[first], growth, _LINEAR if last > first else None))
    return Table(
        "Concurrency",
        rows,
        notes,
        {
            "in_flight": [float(level) for level in config.levels],
            "gateway_per_s": [throughput[level] for level in config.levels],
            "echo_per_s": [load.full_per_s for load in reference],
            **{
                f"gateway_{p}_ms": [
                    median([getattr(load, f"{p}_s") * 1e3 for load in loads[level]])
                    for level in config.levels
                ]
                for p in ("p50", "p99")
            },
            **{
                f"echo_{p}_ms": [getattr(load, f"{p}_s") * 1e3 for load in reference]
                for p in ("p50", "p99")
            },
        },
    )
