"""Compares BatchRecommend with single Recommend calls."""

from __future__ import annotations

from dataclasses import replace

from bench.context import PAGE_SIZE, Context, median, ratios
from bench.generator import Load
from bench.report import Row, Table, Target
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

PATH = "/marquee.v1.RecommenderService/BatchRecommend"
_TARGET = Target(">=", 5.0)


def batches(user_ids: list[str], size: int) -> list[bytes]:
    """Makes serialised requests for `size` users each, repeating users if there are too few."""
    count = max(1, len(user_ids) // size)
    return [
        pb.BatchRecommendRequest(
            subjects=[
                types_pb2.Subject(user_id=user_ids[(first * size + place) % len(user_ids)])
                for place in range(size)
            ],
            page_size=PAGE_SIZE,
        ).SerializeToString()
        for first in range(count)
    ]


def measure(context: Context) -> Table:
    """Measures users per second with one batch in flight, against single calls.

    The single calls are made concurrently, and one at a time.
    """
    config = context.config
    single = context.plan(config.batch_users, config.seconds)
    sizes = (config.batch_users, config.large_batch_users)
    messages = {size: batches(context.user_ids, size) for size in sizes}
    concurrent: list[Load] = []
    sequential: list[Load] = []
    found: dict[int, list[Load]] = {size: [] for size in sizes}
    for number in range(1, config.rounds + 1):
        context.on_step(f"batches, round {number} of {config.rounds}")
        concurrent.append(context.recommend(single))
        sequential.append(context.recommend(context.plan(1, config.unloaded_s)))
        for size in sizes:
            # About as many users as the concurrent calls served in that time.
            users = concurrent[-1].full_per_s * config.seconds
            plan = replace(
                single,
                path=PATH,
                in_flight=1,
                seconds=0.0,
                calls=max(2, round(users / size)),
                streaming=True,
            )
            load = context.generator.run(
                plan, messages[size], context.services.pids, "batch_recommend"
            )
            context.check(f"BatchRecommend of {size}", load)
            found[size].append(load)
    rows = []
    for size in sizes:
        users_per_s = [load.full_per_s for load in found[size]]
        for reference, loads in (
            (f"{config.batch_users} calls in flight", concurrent),
            ("one call in flight", sequential),
        ):
            per_s = [load.full_per_s for load in loads]
            rows.append(
                Row(
                    f"batches of {size}, against {reference}",
                    median(users_per_s),
                    "users/s",
                    median(per_s),
                    median(ratios(users_per_s, per_s)),
                    _TARGET,
                )
            )
        rows += [
            Row(
                f"CPU per user, {service}, batch of {size}",
                median([load.cpu_us(service) for load in found[size]]),
                "µs",
                median([load.cpu_us(service) for load in concurrent]),
            )
            for service in context.services.pids
        ]
    return Table("BatchRecommend against single calls", rows, context.take_notes())
