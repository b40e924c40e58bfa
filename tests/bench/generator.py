"""The load generator as the benchmark sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.http2 import grpc_message
from bench.load import LoadPlan

# Above this share of a core the generator itself may be what is measured.
CLIENT_BOUND_SHARE = 0.9
# What answers that are less than they should be are counted as; each answer is one at most.
SHORT_ANSWERS = ("failed", "empty", "degraded")


@dataclass(frozen=True)
class Load:
    """What a load came to.

    Attributes:
        elapsed_s: Seconds that were counted.
        calls: Calls that ended well in them.
        client_cpu_s: CPU seconds of the load generator in them.
        server_cpu_s: CPU seconds of the watched processes in them, by name.
        errors: By status, calls that ended otherwise, at any time of the load.
        body_bytes: Median size of an answer with the lengths of its messages.
        answers: `answers`, and how many of them were `degraded`, `failed` or `empty`.
        mean_s: Mean latency in seconds.
        p50_s: Its median.
        p90_s: Its 90th percentile.
        p99_s: Its 99th percentile.
    """

    elapsed_s: float
    calls: int
    client_cpu_s: float
    server_cpu_s: dict[str, float]
    errors: dict[str, int]
    body_bytes: float
    answers: dict[str, int]
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float

    @property
    def calls_per_s(self) -> float:
        """Throughput in calls."""
        return self.calls / self.elapsed_s

    @property
    def full_answers(self) -> int:
        """Answers that are all that was asked for: a degraded answer is cheaper, and no gain."""
        return self.answers.get("answers", 0) - self._short_answers

    @property
    def full_per_s(self) -> float:
        """Throughput in full answers."""
        return self.full_answers / self.elapsed_s

    @property
    def client_share(self) -> float:
        """The load generator's CPU as a share of one core."""
        return self.client_cpu_s / self.elapsed_s

    @property
    def fault_counts(self) -> dict[str, int]:
        """By kind, calls and answers that are not what was asked for; errors by their status."""
        short = {name: self.answers[name] for name in SHORT_ANSWERS if self.answers.get(name)}
        return {**{f"status {status}": n for status, n in self.errors.items()}, **short}

    @property
    def faults(self) -> int:
        """How many those are."""
        return sum(self.fault_counts.values())

    @property
    def _short_answers(self) -> int:
        return sum(self.answers.get(name, 0) for name in SHORT_ANSWERS)

    def cpu_us(self, name: str) -> float:
        """CPU of a watched process in µs for each answer."""
        return 1e6 * self.server_cpu_s[name] / max(self.answers.get("answers", 0), 1)


class Generator:
    """A process that makes load."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="marquee-bench-")
        self._files: dict[int, Path] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Its NumPy only sums up; threads would take the servers' cores.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def run(
        self,
        plan: LoadPlan,
        messages: Sequence[bytes],
        pids: Mapping[str, int] | None = None,
        kind: str = "",
    ) -> Load:
        """Runs a plan.

        Args:
            plan: The load.
            messages: Requests, taken in turn.
            pids: Processes whose CPU is told, by name.
            kind: What the answers are; see `bench.worker.count_answers`.

        Raises:
            RuntimeError: The generator ended.
        """
        assert self._process.stdin
        assert self._process.stdout
        request = {
            "plan": asdict(plan),
            "messages": str(self._file(messages)),
            "pids": dict(pids or {}),
            "kind": kind,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended with status {self._process.wait()}")
        return Load(**json.loads(line))

    def _file(self, messages: Sequence[bytes]) -> Path:
        key = hash(tuple(messages))
        if key not in self._files:
            path = Path(self._folder.name) / f"messages-{len(self._files)}"
            path.write_bytes(b"".join(map(grpc_message, messages)))
            self._files[key] = path
        return self._files[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()
