"""Several cores: two replicas of the gateway against one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from bench.context import Context, median, ratios
from bench.report import Row, Table, Target
from marquee_trainer.processes import ServiceProcess

_TARGET = Target(">=", 1.7)


def measure(context: Context) -> Table:
    """Measures throughput over one gateway's address and over those of two, as round robin does."""
    config = context.config
    title, figure = "Several cores", f"two gateways, {config.in_flight} in flight"
    context.on_step("a second gateway")
    backends = context.services.processes
    options = {f"{name}-target": backends[name].address for name in ("cf", "inference")}
    log = context.folder / "logs" / "gateway-2.log"
    throughput: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        second = ServiceProcess("gateway", {"store": context.store.url, **options}, log)
        stack.callback(second.stop)
        second.wait_until_serving()
        addresses = (context.services.gateway.address, second.address)
        pids = {"gateway": context.services.gateway.pid, "second": second.pid}
        everybody = context.plan(config.in_flight, 0.0)
        for address in addresses:
            first = replace(everybody, address=address, calls=len(context.user_ids))
            context.generator.run(first, context.requests, pids, "recommend")
        for number in range(1, config.rounds + 1):
            context.on_step(f"two gateways, round {number} of {config.rounds}")
            for count, found in throughput.items():
                plan = replace(
                    context.plan(config.in_flight, config.seconds),
                    address=",".join(addresses[:count]),
                )
                load = context.generator.run(plan, context.requests, pids, "recommend")
                context.check(f"{count} gateways", load)
                found.append(load.full_per_s)
    ratio = median(ratios(throughput[2], throughput[1]))
    row = Row(figure, median(throughput[2]), "/s", median(throughput[1]), ratio, _TARGET)
    return Table(title, [row], ["reference: one gateway", *context.take_notes()])
