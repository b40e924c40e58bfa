"""Load generators: each runs a plan in a separate process and prints the result as JSON."""

from __future__ import annotations

import gc
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import uvloop

from bench.context import RECOMMEND_PATH
from bench.http2 import grpc_message, grpc_messages
from bench.open_loop import OpenLoop, OpenPlan
from marquee.v1 import feedback_service_pb2 as pb
from marquee.v1 import recommender_service_pb2 as recommender_pb
from marquee.v1 import types_pb2

RECORD_PATH = "/marquee.v1.FeedbackService/RecordFeedback"


@dataclass(frozen=True)
class Result:
    """The result of a load.

    Attributes:
        answers: Number of answers that arrived in time.
        p50_ms: Median latency of the answers in ms.
        p99_ms: 99th percentile of that latency in ms.
        errors: Number of other calls by gRPC status number or description.
        behind_ms: Longest delay between the due time and the start of a call, in ms.
    """

    answers: int
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]
    behind_ms: float


class RunningLoad:
    """A load that runs in a separate process."""

    def __init__(self, plan: OpenPlan, messages: Sequence[bytes], file: Path) -> None:
        """Starts the process.

        Args:
            plan: The load.
            messages: Serialised requests, sent in turn.
            file: File that passes the requests to the process.
        """
        file.write_bytes(b"".join(map(grpc_message, messages)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench_feedback.loads", json.dumps(asdict(plan)), str(file)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def result(self) -> Result:
        """Waits for the end of the load and returns its result.

        Raises:
            RuntimeError: The process failed.
        """
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the load generator exited with {self._process.returncode}")
        return Result(**json.loads(output))


def recommend_requests(users: Sequence[str], page_size: int = 20) -> list[bytes]:
    """Makes a serialised Recommend request for each user."""
    return [
        recommender_pb.RecommendRequest(
            subject=types_pb2.Subject(user_id=user), page_size=page_size
        ).SerializeToString()
        for user in users
    ]


def record_requests(
    users: Sequence[str], items: Sequence[str], requests: int, batch: int, seed: int
) -> list[bytes]:
    """Makes serialised RecordFeedback requests with new ratings.

    Args:
        users: Ids of the users who rate.
        items: Ids of the items to rate.
        requests: Number of requests.
        batch: Events per request.
        seed: Seed of the random users, items and stars.
    """
    random = np.random.default_rng(seed)
    made = []
    for _ in range(requests):
        who, what = random.integers(len(users), size=batch), random.integers(len(items), size=batch)
        stars = random.integers(1, 6, size=batch)
        events = [
            pb.FeedbackEvent(
                user_id=users[user],
                item_id=items[item],
                kind=pb.FEEDBACK_KIND_RATING,
                stars=float(given),
                event_id=secrets.token_hex(16),
            )
            for user, item, given in zip(who, what, stars, strict=True)
        ]
        made.append(pb.RecordFeedbackRequest(events=events).SerializeToString())
    return made


def recommend_plan(address: str, calls_per_s: float, seconds: float) -> OpenPlan:
    """Plans Recommend calls at a fixed rate, with a warm-up of one second."""
    return OpenPlan(address, RECOMMEND_PATH, calls_per_s, seconds + 1.0, skip_s=1.0, timeout_s=5)


def _percentile(values: Sequence[float], q: float) -> float:
    return 1e3 * float(np.percentile(values, q)) if values else float("nan")


def main() -> None:
    """Runs the plan given on the command line."""
    plan = OpenPlan(**json.loads(sys.argv[1]))
    messages = list(grpc_messages(Path(sys.argv[2]).read_bytes()))
    gc.disable()
    outcome = uvloop.run(OpenLoop(plan, messages).run())
    latencies = outcome.latencies_s
    result = Result(
        len(latencies),
        _percentile(latencies, 50),
        _percentile(latencies, 99),
        dict(outcome.errors),
        1e3 * outcome.behind_s,
    )
    sys.stdout.write(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
