"""Measures Recommend without the cache: answers precomputed in the release, and computed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from bench.agreement import FullScoring, agreement_rows, quality_row
from bench.computed_requests import computed_requests, held_out_visitors
from bench.context import Context, median, ratios
from bench.generator import Load
from bench.processes import EchoServer
from bench.report import Row, Table, Target
from bench.sections import recommend
from marquee_core.service_names import BACKENDS, STANDALONE
from marquee_services.processes import ServiceProcess

_THROUGHPUT = Target(">=", 0.20)
_LATENCY = Target("<=", 15.0)
_CPU = Target("<=", 8.0)
_REQUESTS = 400
_COMPARED = 20
_HALVED = 200
_SEED = 1


def measure_precomputed(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures answers precomputed in the release, with the cache disabled."""
    with second_gateway(context, {"answer-cache-mib": "0"}) as changed:
        table = recommend.measure(changed, echo, size)
    return replace(table, title="Recommend, precomputed answers")


def measure(context: Context, echo: EchoServer, size: int) -> Table:
    """Measures answers that must be computed, by three services and by the standalone server."""
    requests = computed_requests(context.store, context.manifest, _REQUESTS, _SEED)
    options = {"answer-cache-mib": "0", "no-precomputed-pages": None}
    rows = []
    with second_gateway(context, options) as changed:
        targets = changed.services.gateway.address, changed.services.pids
        rows += _rows(context, echo, requests, "three services", *targets)
    context.on_step("start the standalone server")
    log = context.folder / "logs" / "standalone.log"
    standalone = ServiceProcess(STANDALONE, {"store": context.store.url, **options}, log)
    try:
        standalone.wait_until_serving()
        pids = {STANDALONE: standalone.pid}
        rows += _rows(context, echo, requests, STANDALONE, standalone.address, pids)
        context.on_step("compare with full scoring")
        full = FullScoring(context.store, context.manifest.release_id, context.folder / "cache")
        compared = {kind: messages[:_COMPARED] for kind, messages in requests.items()}
        rows += agreement_rows(full, standalone.address, compared)
        halved = held_out_visitors(context.store, context.manifest, _HALVED, _SEED)
        rows.append(quality_row(full, standalone.address, halved))
    finally:
        standalone.stop()
    notes = [f"reference: grpc.aio echo, answers of {size} bytes", *context.take_notes()]
    return Table("Recommend, computed answers", rows, notes)


def _rows(
    context: Context,
    echo: EchoServer,
    requests: Mapping[str, list[bytes]],
    setup: str,
    address: str,
    pids: Mapping[str, int],
) -> list[Row]:
    """Measures each kind of request with many calls and with one call in flight, against the echo.

    Args:
        context: The services and the load generator.
        echo: The reference server.
        requests: Serialised Recommend requests by kind.
        setup: Name of the servers, for the rows.
        address: The address to call.
        pids: The processes whose CPU time is measured, by name.
    """
    config = context.config
    plans = {
        "loaded": replace(context.plan(config.in_flight, config.seconds), address=address),
        "unloaded": replace(context.plan(1, config.unloaded_s), address=address),
    }
    loads: dict[tuple[str, str], list[Load]] = {}
    echoes: dict[tuple[str, str], list[Load]] = {}
    for number in range(1, config.rounds + 1):
        for kind, messages in requests.items():
            context.on_step(f"{setup}, {kind}, round {number} of {config.rounds}")
            for name, plan in plans.items():
                echoes.setdefault((kind, name), []).append(context.echo(plan, echo))
                load = context.generator.run(plan, messages, pids, "recommend")
                context.check(f"{setup}, {kind}, {plan.in_flight} in flight", load)
                loads.setdefault((kind, name), []).append(load)
    rows = []
    for kind in requests:
        ours, theirs = loads[kind, "loaded"], echoes[kind, "loaded"]
        measured = [load.full_per_s for load in ours]
        reference = [load.full_per_s for load in theirs]
        title = f"{setup}, {kind}"
        rows.append(
            Row(
                f"{title}: throughput, {config.in_flight} in flight",
                median(measured),
                "/s",
                median(reference),
                median(ratios(measured, reference)),
                _THROUGHPUT,
            )
        )
        for percentile in ("p50", "p99"):
            mine = [getattr(load, f"{percentile}_s") * 1e3 for load in loads[kind, "unloaded"]]
            other = [getattr(load, f"{percentile}_s") * 1e3 for load in echoes[kind, "unloaded"]]
            rows.append(
                Row(
                    f"{title}: unloaded {percentile}",
                    median(mine),
                    "ms",
                    median(other),
                    median(ratios(mine, other)),
                    _LATENCY,
                )
            )
        cpu = [sum(load.cpu_us(name) for name in pids) for load in ours]
        echo_cpu = [load.cpu_us("echo") for load in theirs]
        rows.append(
            Row(
                f"{title}: CPU per call, all processes",
                median(cpu),
                "µs",
                median(echo_cpu),
                median(ratios(cpu, echo_cpu)),
                _CPU,
            )
        )
        if len(pids) > 1:
            rows += [
                Row(
                    f"{title}: CPU per call, {name}",
                    median([load.cpu_us(name) for load in ours]),
                    "µs",
                )
                for name in pids
            ]
    return rows


@contextmanager
def second_gateway(context: Context, options: Mapping[str, str | None]) -> Iterator[Context]:
    """Runs a second gateway with other flags and the same backends; yields its context."""
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
        yield replace(context, services=context.services.behind(gateway))
    finally:
        gateway.stop()
