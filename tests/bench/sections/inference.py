"""TensorFlow inference: the cost of a user alone, and in a batch."""

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
    """Calls the inference service directly: all its models, the whole catalogue."""
    config = context.config
    process = context.services.processes["inference"]
    base = replace(context.plan(1, config.seconds), address=process.address, path=_PATH)
    ways = {
        "alone": (base, _requests(context, 1), 1),
        "together": (replace(base, in_flight=_MERGED), _requests(context, 1), 1),
        "one call": (base, _requests(context, _MERGED), _MERGED),
    }
    loads: dict[str, list[Load]] = {name: [] for name in ways}
    for number in range(1, config.rounds + 1):
        context.on_step(f"inference, round {number} of {config.rounds}")
        for name, (plan, messages, _) in ways.items():
            load = context.generator.run(plan, messages, {"inference": process.pid})
            context.check(f"inference, {name}", load)
            loads[name].append(load)
    wall, cpu = {}, {}
    for name, (_, _, users) in ways.items():
        wall[name] = ratios(
            [1e6 / users] * config.rounds, [load.full_per_s for load in loads[name]]
        )
        cpu[name] = [load.cpu_us("inference") / users for load in loads[name]]
    rows = []
    for label, name in (
        (f"{_MERGED} calls of one user in flight", "together"),
        (f"one call of {_MERGED} users at a time", "one call"),
    ):
        for measure_name, by_way in (("time", wall), ("CPU", cpu)):
            ratio = median(ratios(by_way[name], by_way["alone"]))
            target = _TARGET if name == "together" and measure_name == "time" else None
            rows.append(
                Row(
                    f"{measure_name} per user, {label}",
                    median(by_way[name]),
                    "µs",
                    median(by_way["alone"]),
                    ratio,
                    target,
                )
            )
    notes = ["reference: one call of one user at a time", *context.take_notes()]
    return Table("TensorFlow inference", rows, notes)
