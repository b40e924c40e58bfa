"""Offline lists of the toy release, computed in the process of the test."""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.tasks.task import A, OnReport, R, Work
from marquee_services.lists.request import ListRequest, Loaders
from toy.release import TOY_LOADERS


def toy_loaders() -> Loaders:
    """Return the loaders of toy models; at module level, so that it can be sent to a process."""
    return TOY_LOADERS


def run_here(
    work: Work[A, R], tasks: Sequence[A], on_report: OnReport
) -> Generator[tuple[int, R], None, None]:
    """Run tasks in this process; implements `RunTasks`."""
    for place, task in enumerate(tasks):
        yield place, work(task, partial(on_report, place))


def list_request(
    store: str,
    release_id: str,
    cache: Path,
    options: pb.RecommendOptions | None = None,
    **changes: Any,
) -> ListRequest:
    """Return a request for lists of a toy release.

    Args:
        store: The URL of the store.
        release_id: The release.
        cache: The folder for copies of release files.
        options: The options of all lists; None for the defaults.
        changes: Other fields that differ from their defaults.
    """
    serialised = (options or pb.RecommendOptions()).SerializeToString()
    return ListRequest(
        store,
        release_id,
        **{"options": serialised, "cache_dir": str(cache), "loaders": toy_loaders, **changes},
    )


def rows_of(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file."""
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return rows
