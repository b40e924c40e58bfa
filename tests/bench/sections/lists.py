"""Compares `marquee batch --store` with a BatchRecommend whose answers must all be computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

from bench.context import PAGE_SIZE, Context, median, ratios
from bench.report import Row, Table, Target
from bench.sections.batch import PATH, batches
from bench.sections.computed import second_gateway

_TARGET = Target(">=", 4.0)
_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def measure(context: Context) -> Table:
    """Measures users per core-second, for a process that writes lists and for the services."""
    config = context.config
    users = context.user_ids
    ours: list[float] = []
    theirs: list[float] = []
    options = {"answer-cache-mib": "0", "no-precomputed-pages": None}
    with second_gateway(context, options) as changed:
        pids = changed.services.pids
        messages = batches(users, len(users))
        plan = replace(
            changed.plan(1, 0.0),
            path=PATH,
            calls=max(1, round(config.list_users / len(users))),
            streaming=True,
        )
        for number in range(1, config.rounds + 1):
            context.on_step(f"lists, round {number} of {config.rounds}")
            load = context.generator.run(plan, messages, pids, "batch_recommend")
            context.check(f"BatchRecommend of {len(users)}, computed", load)
            theirs.append(1e6 / sum(load.cpu_us(name) for name in pids))
            ours.append(len(users) / _cpu_of_lists(context, users))
    rows = [
        Row(
            "users per core-second, against BatchRecommend",
            median(ours),
            "users",
            median(theirs),
            median(ratios(ours, theirs)),
            _TARGET,
        )
    ]
    return Table("Lists without servers against BatchRecommend", rows, context.take_notes())


def _cpu_of_lists(context: Context, users: list[str]) -> float:
    """Returns the CPU time of writing lists in a subprocess in seconds, without loading."""
    arguments = {
        "store": context.store.url,
        "release_id": context.manifest.release_id,
        "page_size": PAGE_SIZE,
        "user_ids": users,
    }
    found = subprocess.run(
        [sys.executable, "-m", "bench.lists"],
        input=json.dumps(arguments),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **dict.fromkeys(_BLAS_VARIABLES, "1")},
    )
    seconds: float = json.loads(found.stdout)["cpu_s"]
    return seconds
