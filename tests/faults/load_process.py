"""The load generator's process: reads a plan from stdin, and writes the result to stdout.

It runs as a separate process, so the driver does not delay it, and in a separate session: on Linux
each session gets an equal share of the CPU (autogroup), so under overload the generator neither
starves nor takes more CPU than each server does.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.http2 import grpc_message, grpc_messages
from bench.load import ClosedLoop, LoadPlan
from bench.open_loop import OpenLoop, OpenPlan
from bench.worker import count_answers


@dataclass(frozen=True)
class Result:
    """The result of a load.

    Attributes:
        begun: Number of calls.
        full_per_s: Answers per second that arrived in time and are not degraded.
        degraded: Number of degraded answers.
        p50_ms: Median latency of the answers in ms.
        p99_ms: 99th percentile of that latency in ms.
        errors: Number of failed calls by gRPC status number or description.
        refused_p99_ms: 99th percentile of the latency of RESOURCE_EXHAUSTED, in ms.
        behind_ms: Longest delay between the due time and the start of a call, in ms.
    """

    begun: int
    full_per_s: float
    degraded: int
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]
    refused_p99_ms: float
    behind_ms: float


def run_load(plan: OpenPlan | LoadPlan, messages: Sequence[bytes], folder: Path) -> Result:
    """Runs a load in a separate process.

    Args:
        plan: The load: at a fixed rate, or with a fixed number of calls in flight.
        messages: Serialised Recommend requests, sent in turn.
        folder: Folder for the file that passes the requests to the process.

    Raises:
        CalledProcessError: The process failed.
    """
    file = folder / "messages"
    file.write_bytes(b"".join(map(grpc_message, messages)))
    kind = "open" if isinstance(plan, OpenPlan) else "closed"
    request = {"kind": kind, "plan": asdict(plan), "messages": str(file)}
    answer = subprocess.run(
        [sys.executable, "-m", "faults.load_process"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    return Result(**json.loads(answer.stdout))


def _percentile(values: Sequence[float], q: float) -> float:
    return 1e3 * float(np.percentile(values, q)) if values else float("nan")


def _result(request: dict[str, Any]) -> Result:
    messages = list(grpc_messages(Path(request["messages"]).read_bytes()))
    # Calls create no reference cycles, and the collector would scan the stored answers repeatedly.
    gc.disable()
    if request["kind"] == "open":
        plan = OpenPlan(**request["plan"])
        outcome = uvloop.run(OpenLoop(plan, messages).run())
        seconds, begun = plan.seconds - plan.skip_s, outcome.begun
        refusals, behind = outcome.error_latencies_s.get("8", []), outcome.behind_s
    else:
        closed = uvloop.run(
            ClosedLoop(LoadPlan(**request["plan"]), messages, lambda _begin: None).run()
        )
        outcome, seconds = closed, closed.elapsed_s  # type: ignore[assignment]
        begun, refusals, behind = len(closed.latencies_s), [], 0.0
    counts = count_answers("recommend", outcome.bodies)
    full = counts["answers"] - counts["degraded"] - counts["empty"]
    return Result(
        begun=begun,
        full_per_s=full / seconds,
        degraded=counts["degraded"],
        p50_ms=_percentile(outcome.latencies_s, 50),
        p99_ms=_percentile(outcome.latencies_s, 99),
        errors=dict(outcome.errors),
        refused_p99_ms=_percentile(refusals, 99),
        behind_ms=1e3 * behind,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_result(json.load(sys.stdin)))))
