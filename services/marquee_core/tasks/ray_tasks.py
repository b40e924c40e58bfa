"""Runs tasks on a Ray cluster, whose nodes need this package and everything the tasks import.

Ray retries a task whose worker or node has died. The work is sent to the cluster once, and each
worker process uses one copy for all of its tasks, as in `processes.py`.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from marquee_core.tasks.task import MAX_TRIES, A, OnReport, R, TaskError, Work, ignore_report

LOCAL = "local"
"""The address that starts Ray on this machine."""

# Seconds between two polls for the tasks' progress reports.
_POLL_S = 0.2
_CONNECT_S = 10.0


class _Reports:
    """An actor that collects the tasks' progress reports until they are taken."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, Any]] = []

    def add(self, index: int, value: object) -> None:
        self._reports.append((index, value))

    def take(self) -> list[tuple[int, Any]]:
        taken, self._reports = self._reports, []
        return taken


@lru_cache(maxsize=2)
def _fetch_work(work_reference: _WorkReference) -> Work[Any, Any]:
    """Returns the work of a run; each worker process fetches it once."""
    import ray

    work: Work[Any, Any] = ray.get(work_reference.reference)
    return work


class _WorkReference:
    """Wraps a reference to the work, because Ray resolves a bare reference for every task."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def __hash__(self) -> int:
        return hash(self.reference)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WorkReference) and other.reference == self.reference


def _run_task(work_reference: _WorkReference, index: int, task: object, reports: Any) -> Any:
    import ray

    sent: deque[Any] = deque(maxlen=1)
    result = _fetch_work(work_reference)(
        task, lambda value: sent.append(reports.add.remote(index, value))
    )
    # Reports arrive in order, and the last of them before the result.
    ray.get(list(sent))
    return result


def run_on_ray(
    work: Work[A, R],
    tasks: Sequence[A],
    on_report: OnReport = ignore_report,
    *,
    address: str,
) -> Generator[tuple[int, R], None, None]:
    """Runs tasks on a Ray cluster; see `RunTasks`.

    If the caller closes the iterator or is interrupted, all tasks are cancelled. Each task uses one
    core of the cluster.

    Args:
        work: Performs a task.
        tasks: The tasks, started in this order.
        on_report: Receives the tasks' progress reports, with some delay.
        address: The address of the cluster: `auto` for the one on this machine or in the
            environment variable RAY_ADDRESS, `local` to start one on this machine.

    Raises:
        TaskError: There is no cluster at the address, or a worker has died repeatedly.
    """
    with connected(address):
        yield from _run_tasks(work, tasks, on_report)


def _run_tasks(
    work: Work[A, R], tasks: Sequence[A], on_report: OnReport
) -> Generator[tuple[int, R], None, None]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    pending: dict[Any, int] = {}
    reports = ray.remote(num_cpus=0)(_Reports).remote()

    def deliver() -> None:
        for index, value in ray.get(reports.take.remote()):
            on_report(index, value)

    try:
        remote_task = ray.remote(num_cpus=1, max_retries=MAX_TRIES - 1)(_run_task)
        work_reference = _WorkReference(ray.put(work))
        pending = {
            remote_task.remote(work_reference, index, task, reports): index
            for index, task in enumerate(tasks)
        }
        while pending:
            done, _ = ray.wait(list(pending), timeout=_POLL_S)
            deliver()
            for reference in done:
                index = pending.pop(reference)
                yield index, ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else TaskError(str(error))) from None
    except RayError as error:
        raise TaskError(f"Ray: {error}") from error
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        ray.kill(reports)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a Ray cluster while the block runs, or keeps an earlier connection.

    Args:
        address: The address of the cluster, as for `run_on_ray`.

    Raises:
        TaskError: There is no cluster at the address, or Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise TaskError("Ray is not installed: pip install 'marquee-recommender[ray]'") from error

    if ray.is_initialized():
        yield
        return
    try:
        _check_reachable(address)
        ray.init(address, log_to_driver=False, include_dashboard=_dashboard(address))
    except (OSError, ValueError, RuntimeError) as error:
        raise TaskError(f"Ray at {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Checks that `host:port` accepts connections; Ray would retry for minutes.

    Raises:
        OSError: It does not.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), _CONNECT_S).close()


def _dashboard(address: str) -> bool | None:
    """Returns the value of `include_dashboard`: False for a cluster that is started here."""
    return False if address == LOCAL else None
