"""Runs load plans in the load generator's process and reads the results."""

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

# Above this share of a core, the load generator may be the bottleneck.
CLIENT_BOUND_SHARE = 0.9
# The kinds of answers that are not full; an answer is of at most one kind.
_NOT_FULL = ("failed", "empty", "degraded")


@dataclass(frozen=True)
class Load:
    """The measured result of a load plan.

    Attributes:
        elapsed_s: Duration of the counted part of the load, in seconds.
        calls: Number of successful calls in that time.
        client_cpu_s: CPU time of the load generator in that time, in seconds.
        server_cpu_s: CPU time of the watched processes in that time, in seconds, by name.
        errors: Calls that failed at any time, counted by status.
        body_bytes: Median size in bytes of a response, gRPC prefixes included.
        answers: The number of `answers`, and how many were `degraded`, `failed` or `empty`.
        mean_s: Mean latency in seconds.
        p50_s: Median latency in seconds.
        p90_s: 90th percentile of the latency in seconds.
        p99_s: 99th percentile of the latency in seconds.
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
        """Successful calls per second."""
        return self.calls / self.elapsed_s

    @property
    def full_answers(self) -> int:
        """Answers that are not failed, empty or degraded; only these count as throughput."""
        not_full = sum(self.answers.get(name, 0) for name in _NOT_FULL)
        return self.answers.get("answers", 0) - not_full

    @property
    def full_per_s(self) -> float:
        """Full answers per second."""
        return self.full_answers / self.elapsed_s

    @property
    def client_share(self) -> float:
        """The load generator's CPU time as a share of one core."""
        return self.client_cpu_s / self.elapsed_s

    @property
    def fault_counts(self) -> dict[str, int]:
        """Failed calls by status, and answers that are not full by kind."""
        not_full = {name: self.answers[name] for name in _NOT_FULL if self.answers.get(name)}
        return {**{f"status {status}": n for status, n in self.errors.items()}, **not_full}

    @property
    def faults(self) -> int:
        """Number of failed calls and of answers that are not full."""
        return sum(self.fault_counts.values())

    def cpu_us(self, name: str) -> float:
        """Returns the CPU time of a watched process per answer, in µs."""
        return 1e6 * self.server_cpu_s[name] / max(self.answers.get("answers", 0), 1)


class Generator:
    """The load generator's process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="marquee-bench-")
        self._files: dict[int, Path] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # It needs no BLAS threads, which would take cores from the servers.
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
            messages: Serialised requests, sent in turn.
            pids: Processes whose CPU time is measured, by name.
            kind: The kind of answers; see `bench.worker.count_answers`.

        Raises:
            RuntimeError: The load generator's process ended.
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
            raise RuntimeError(f"the load generator exited with status {self._process.wait()}")
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
