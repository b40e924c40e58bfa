"""The scoring core without RPC, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from bench.context import Context
from bench.report import Row, Table


def measure(context: Context) -> Table:
    """Runs `bench.core` with one thread, and reads its table.

    Raises:
        CalledProcessError: It failed.
    """
    config = context.config
    context.on_step(f"scoring core, {config.core_items:,} items")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    request = {
        "items": config.core_items,
        "rounds": config.core_rounds,
        "cf_users": config.cf_users,
        "store": context.store.url,
        "release_id": context.manifest.release_id,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.core", json.dumps(request)],
        env={**os.environ, **threads, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    rows = [Row.of(raw) for raw in answer["rows"]]
    return Table("Scoring core, one thread", rows, [*answer["notes"], *context.take_notes()])
