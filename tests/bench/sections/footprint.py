"""Measures the start-up time, memory and idle CPU of the services."""

from __future__ import annotations

from dataclasses import replace

from bench.context import Context, median
from bench.processes import SERVICES, Services, idle_shares, memory_of
from bench.report import Row, Table, Target
from marquee.v1 import recommender_service_pb2 as pb

_START_S = {"cf": 2.0, "inference": 8.0, "gateway": 2.0}
_MEMORY_MB = {"cf": 200, "inference": 600, "gateway": 120}
_IDLE = Target("<=", 1.0)
_MB = 1e6
_SETTLE_S = 1.0
# A request with diversity bypasses precomputed answers, so every answer must be computed.
_DIVERSITY = 0.2


def measure(context: Context) -> Table:
    """Measures the services' memory and idle CPU after load, and their start-up time.

    The load makes the backends compute scores for all users.
    """
    config = context.config
    rows = []
    context.on_step("compute an answer for every user")
    plan = replace(context.plan(config.in_flight, 0.0), calls=len(context.user_ids))
    requests = context.requests_with(pb.RecommendOptions(diversity=_DIVERSITY))
    context.generator.run(plan, requests, context.services.pids, "recommend")
    context.on_step("memory")
    for service in SERVICES:
        memory = memory_of(context.services.pids[service])
        own = memory.resident - (memory.mapped if service == "cf" else 0)
        name = "RSS without mapped arrays" if service == "cf" else "RSS"
        target = Target("<=", _MEMORY_MB[service])
        rows.append(Row(f"{service}: {name}, after load", own / _MB, "MB", target=target))
        rows.append(Row(f"{service}: PSS", memory.proportional / _MB, "MB"))
        rows.append(Row(f"{service}: mapped arrays in RSS", memory.mapped / _MB, "MB"))
    context.on_step("idle")
    idle_shares(context.services.pids, _SETTLE_S)
    for service, share in idle_shares(context.services.pids, config.idle_s).items():
        rows.append(Row(f"{service}: idle CPU", 100 * share, "%", target=_IDLE))
    starts = [context.services.start_s]
    for number in range(2, config.starts + 1):
        context.on_step(f"start {number} of {config.starts}")
        with Services(context.store.url, context.folder / "logs") as others:
            starts.append(others.start_s)
    for service in SERVICES:
        seconds = median([start[service] for start in starts])
        rows.append(
            Row(
                f"{service}: start until SERVING",
                seconds,
                "s",
                target=Target("<=", _START_S[service]),
            )
        )
    return Table("Start-up time, memory and idle CPU", rows, context.take_notes())
