"""The load generator's process: reads plans from stdin, and writes results to stdout.

Each plan and each result is a line of JSON. A plan names a file with the requests, each with its
gRPC prefix.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop

from bench.http2 import grpc_messages
from bench.load import ClosedLoop, LoadPlan, Outcome
from marquee.v1 import recommender_service_pb2 as pb

_PERCENTILES = {"p50_s": 50, "p90_s": 90, "p99_s": 99}


class CpuClock:
    """Measures the CPU time of processes while calls are counted.

    Attributes:
        used_s: CPU time in the counted part of the load, in seconds, by name.
    """

    def __init__(self, pids: dict[str, int]) -> None:
        """Opens the processes, given by name and id."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before: dict[str, float] = {}
        self.used_s: dict[str, float] = {}

    def on_window(self, begin: bool) -> None:
        """Starts the measurement if called with True, and ends it if called with False."""
        now = {}
        for name, process in self._processes.items():
            times = process.cpu_times()
            now[name] = times.user + times.system
        if begin:
            self._before = now
        else:
            self.used_s = {name: now[name] - self._before[name] for name in now}


def run_plan(raw: dict[str, Any]) -> dict[str, Any]:
    """Runs a plan and summarises the result.

    Args:
        raw: A mapping with `plan`, the fields of `LoadPlan`; `messages`, the file of requests;
            `pids`, ids of the processes whose CPU time is measured, by name; and `kind`, the kind
            of the answers (see `count_answers`).

    Returns:
        The fields of `bench.generator.Load`.
    """
    plan = LoadPlan(**raw["plan"])
    messages = list(grpc_messages(Path(raw["messages"]).read_bytes()))
    clock = CpuClock(raw["pids"])
    loop = ClosedLoop(plan, messages, clock.on_window)
    # Calls create no reference cycles, and the collector would scan the stored answers repeatedly.
    gc.disable()
    outcome: Outcome = uvloop.run(loop.run())
    gc.enable()
    latencies = np.array(outcome.latencies_s or [np.nan])
    return {
        "elapsed_s": outcome.elapsed_s,
        "calls": len(outcome.latencies_s),
        "client_cpu_s": outcome.client_cpu_s,
        "server_cpu_s": clock.used_s,
        "errors": dict(outcome.errors),
        "body_bytes": float(np.median([len(b) for b in outcome.bodies] or [0])),
        "answers": dict(count_answers(raw["kind"], outcome.bodies)),
        "mean_s": float(latencies.mean()),
        **{name: float(np.percentile(latencies, q)) for name, q in _PERCENTILES.items()},
    }


def count_answers(kind: str, bodies: Sequence[bytes]) -> Counter[str]:
    """Counts all answers, and the degraded, failed and empty ones.

    Args:
        kind: `recommend`, `batch_recommend`, or "" to count the messages without parsing them.
        bodies: The bodies of successful responses.

    Returns:
        The number of `answers`, and how many of them are `degraded` (models are missing),
        `failed` (an error for a subject of a batch) or `empty` (without items).
    """
    counts: Counter[str] = Counter()
    for body in bodies:
        for message in grpc_messages(body):
            if not kind:
                counts["answers"] += 1
                continue
            counts.update(_qualities(kind, message))
    return counts


def _qualities(kind: str, message: bytes) -> Iterator[str]:
    """Yields the counters to increment for a message."""
    if kind == "batch_recommend":
        for answer in pb.BatchRecommendResponse.FromString(message).answers:
            yield from _quality(answer.recommendations, failed=answer.HasField("error"))
    else:
        yield from _quality(pb.RecommendResponse.FromString(message), failed=False)


def _quality(
    answer: pb.RecommendResponse | pb.BatchRecommendResponse.Recommendations, *, failed: bool
) -> Iterator[str]:
    yield "answers"
    if failed:
        yield "failed"
    elif not answer.items:
        yield "empty"
    elif answer.source.degraded:
        yield "degraded"


def main() -> None:
    """Runs plans from stdin until it is closed."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_plan(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
