"""Measures the throughput of two gateways against that of one.

All processes share the machine's cores. To use less CPU, the load generator pauses between reads
and handles several answers together. On a machine with few cores, the CPU that it still needs
limits the ratio, so the table shows that limit.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import psutil

from bench.context import Context, median, ratios
from bench.generator import Load
from bench.report import Row, Table, Target
from marquee_core.service_names import BACKENDS
from marquee_services.processes import ServiceProcess

_TARGET = Target(">=", 1.7)
_PAUSE_S = 0.002


def measure(context: Context) -> Table:
    """Measures the throughput of one gateway and of two with balanced connections."""
    config = context.config
    context.on_step("start a second gateway")
    backends = context.services.processes
    options = {f"{name}-target": backends[name].address for name in BACKENDS}
    log = context.folder / "logs" / "gateway-2.log"
    loads: dict[int, list[Load]] = {1: [], 2: []}
    with ExitStack() as stack:
        second = ServiceProcess("gateway", {"store": context.store.url, **options}, log)
        stack.callback(second.stop)
        second.wait_until_serving()
        addresses = (context.services.gateway.address, second.address)
        pids = {"gateway": context.services.gateway.pid, "second": second.pid}
        for address in addresses:
            prime = replace(
                context.plan(config.in_flight, 0.0), address=address, calls=len(context.user_ids)
            )
            context.generator.run(prime, context.requests, pids, "recommend")
        plan = replace(context.plan(config.many_in_flight, config.seconds), pause_s=_PAUSE_S)
        for number in range(1, config.rounds + 1):
            context.on_step(f"two gateways, round {number} of {config.rounds}")
            for count, found in loads.items():
                balanced = replace(plan, address=",".join(addresses[:count]))
                load = context.generator.run(balanced, context.requests, pids, "recommend")
                context.check(f"{count} gateways", load)
                found.append(load)
    return Table(
        "Several cores",
        replica_rows(loads[1], loads[2], config.many_in_flight),
        ["reference: one gateway", *context.take_notes()],
    )


def replica_rows(one: list[Load], two: list[Load], in_flight: int) -> list[Row]:
    """Makes the rows of the table from the loads on one gateway and on two gateways."""
    single, both = ([load.full_per_s for load in loads] for loads in (one, two))
    costs = [load.cpu_us("gateway") + load.cpu_us("second") + _generator_us(load) for load in two]
    limits = [(psutil.cpu_count() or 1) * 1e6 / cost for cost in costs]
    reference = median(single)
    return [
        Row(
            f"two gateways, {in_flight} in flight",
            median(both),
            "/s",
            reference,
            median(ratios(both, single)),
            _TARGET,
        ),
        Row(
            "limit set by the cores, including the load generator",
            median(limits),
            "/s",
            reference,
            median(ratios(limits, single)),
        ),
        Row(
            "CPU per call, both gateways, against one",
            median([load.cpu_us("gateway") + load.cpu_us("second") for load in two]),
            "µs",
            median([load.cpu_us("gateway") for load in one]),
        ),
        Row("CPU per call, load generator", median([_generator_us(load) for load in two]), "µs"),
    ]


def _generator_us(load: Load) -> float:
    return 1e6 * load.client_cpu_s / max(load.full_answers, 1)
