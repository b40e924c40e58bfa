"""Several cores: a gateway with two workers against one."""

from __future__ import annotations

from dataclasses import fields, replace

from bench.context import Context, median, ratios
from bench.processes import Services
from bench.report import Row, Table, Target
from bench.sections.kept import without_kept_answers
from marquee_services.gateway.settings import GatewaySettings

_OPTION = "workers"
_TARGET = Target(">=", 1.7)


def measure(context: Context) -> Table:
    """Measures throughput, if the gateway has the option."""
    config = context.config
    title, figure = "Several cores", f"two workers, {config.in_flight} in flight"
    if _OPTION not in {field.name for field in fields(GatewaySettings)}:
        nan = float("nan")
        row = Row(figure, nan, "/s", nan, nan, _TARGET)
        return Table(title, [row], [f"the gateway has no option --{_OPTION}"])
    context.on_step("start gateways of one and of two workers")
    throughput: dict[int, list[float]] = {1: [], 2: []}
    running = {}
    try:
        for count in throughput:
            running[count] = Services(
                context.store.url,
                context.folder / "logs" / f"{_OPTION}-{count}",
                {**without_kept_answers(), _OPTION: str(count)},
            )
        for number in range(1, config.rounds + 1):
            context.on_step(f"workers, round {number} of {config.rounds}")
            for count, services in running.items():
                plan = replace(
                    context.plan(config.in_flight, config.seconds),
                    address=services.gateway.address,
                    connections=config.in_flight,
                )
                load = context.generator.run(plan, context.requests, services.pids, "recommend")
                context.check(f"{count} workers", load)
                throughput[count].append(load.full_per_s)
    finally:
        for services in running.values():
            services.stop()
    ratio = median(ratios(throughput[2], throughput[1]))
    row = Row(figure, median(throughput[2]), "/s", median(throughput[1]), ratio, _TARGET)
    return Table(title, [row], ["reference: one worker", *context.take_notes()])
