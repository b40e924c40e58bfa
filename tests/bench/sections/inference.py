"""Measures the inference service's cost per user: one at a time, micro-batched, and in one call."""

from __future__ import annotations

from dataclasses import replace

from bench.context import Context, median, ratios
from bench.generator import Load
from bench.report import Row, Table, Target
from marquee.v1 import scoring_service_pb2 as pb

_PATH = "/marquee.v1.ScoringService/ScoreItems"
_MERGED = 32
_TARGET = Target("<=", 0.25)


def _requests(context: Context, users: int) -> list[bytes]:
    count = min(context.manifest.data.user_count, context.config.users)
    return [
        pb.ScoreItemsRequest(
            release_id=context.manifest.release_id,
            users=[pb.UserQuery(user_index=(first + place) % count) for place in range(users)],
        ).SerializeToString()
        for first in range(0, count, users)
    ]


def measure(context: Context) -> Table:
    """Measures direct calls to the inference service with all its models and items."""
    config = context.config
    process = context.services.processes["inference"]
    base = replace(context.plan(1, config.seconds), address=process.address, path=_PATH)
    setups = {
        "single": (base, _requests(context, 1), 1),
        "micro-batched": (replace(base, in_flight=_MERGED), _requests(context, 1), 1),
        "one call": (base, _requests(context, _MERGED), _MERGED),
    }
    loads: dict[str, list[Load]] = {name: [] for name in setups}
    for number in range(1, config.rounds + 1):
        context.on_step(f"inference, round {number} of {config.rounds}")
        for name, (plan, messages, _) in setups.items():
            load = context.generator.run(plan, messages, {"inference": process.pid})
            context.check(f"inference, {name}", load)
            loads[name].append(load)
    wall, cpu = {}, {}
    for name, (_, _, users) in setups.items():
        wall[name] = ratios(
            [1e6 / users] * config.rounds, [load.full_per_s for load in loads[name]]
        )
        cpu[name] = [load.cpu_us("inference") / users for load in loads[name]]
    rows = []
    for label, name in (
        (f"{_MERGED} calls for one user in flight", "micro-batched"),
        (f"one call for {_MERGED} users at a time", "one call"),
    ):
        for measure_name, values in (("time", wall), ("CPU", cpu)):
            ratio = median(ratios(values[name], values["single"]))
            target = _TARGET if name == "micro-batched" and measure_name == "time" else None
            rows.append(
                Row(
                    f"{measure_name} per user, {label}",
                    median(values[name]),
                    "µs",
                    median(values["single"]),
                    ratio,
                    target,
                )
            )
    notes = ["reference: one call for one user at a time", *context.take_notes()]
    return Table("Inference service", rows, notes)
