"""Measures the scoring core and retrieval without RPC, each in a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from bench.context import Context
from bench.report import Row, Table


def measure(context: Context) -> Table:
    """Runs `bench.kernels` with one thread and returns its table.

    Raises:
        CalledProcessError: The subprocess failed.
    """
    config = context.config
    context.on_step(f"scoring core, {config.core_items:,} items")
    request = {
        "items": config.core_items,
        "rounds": config.core_rounds,
        "cf_users": config.cf_users,
        "store": context.store.url,
        "release_id": context.manifest.release_id,
    }
    return run_module("Scoring core, one thread", "bench.kernels", request, context)


def measure_retrieval(context: Context) -> Table:
    """Runs `bench.ann` with one thread and returns its table.

    Raises:
        CalledProcessError: The subprocess failed.
    """
    config = context.config
    context.on_step(f"approximate retrieval, {config.core_items:,} items")
    request = {
        "items": config.core_items,
        "rounds": config.core_rounds,
        "cache": str(context.folder),
    }
    return run_module("Large catalogue, one thread", "bench.ann", request, context)


def measure_catalogues(context: Context) -> Table:
    """Runs `bench.catalogues` with one thread and returns its table.

    Raises:
        CalledProcessError: The subprocess failed.
    """
    config = context.config
    context.on_step("visitors in large catalogues")
    request = {"items": config.catalogue_items, "rounds": config.core_rounds}
    return run_module("Visitors in large catalogues", "bench.catalogues", request, context)


def run_module(title: str, module: str, request: dict[str, Any], context: Context) -> Table:
    """Runs a module with one thread and makes a table from its output.

    Raises:
        CalledProcessError: The subprocess failed.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(request)],
        env={**os.environ, **threads, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    rows = [Row.of(raw) for raw in answer["rows"]]
    return Table(title, rows, [*answer["notes"], *context.take_notes()])
