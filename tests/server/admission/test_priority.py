"""Priorities: which work runs first, and how a priority is passed to another process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from marquee_services.server.admission.priority import (
    PRIORITY,
    Priority,
    PriorityExecutor,
    give_way,
    priority_metadata,
    priority_of,
)


def submit(
    executor: PriorityExecutor, priority: Priority, done: list[str], name: str
) -> Future[None]:
    """Queues work that appends its name to a list."""
    token = PRIORITY.set(priority)
    try:
        return executor.submit(done.append, name)
    finally:
        PRIORITY.reset(token)


def test_work_for_batches_has_the_lowest_priority() -> None:
    """Single calls that were queued later run first; within a priority the order is kept."""
    executor, gate, done = PriorityExecutor("test"), threading.Event(), list[str]()
    executor.submit(gate.wait)
    futures = [
        submit(executor, Priority.BATCH, done, "batch 1"),
        submit(executor, Priority.INTERACTIVE, done, "single 1"),
        submit(executor, Priority.BATCH, done, "batch 2"),
        submit(executor, Priority.INTERACTIVE, done, "single 2"),
    ]
    gate.set()
    for future in futures:
        future.result(60)
    assert done == ["single 1", "single 2", "batch 1", "batch 2"]
    executor.shutdown()


def test_single_calls_run_between_the_steps_of_work_for_batches() -> None:
    """A single call waits for one step of a batch's work only, and is itself not interrupted."""
    executor, done = PriorityExecutor("test"), list[str]()
    started, gate = threading.Event(), threading.Event()

    def steps(name: str) -> None:
        started.set()
        gate.wait()
        done.append(f"{name}, first step")
        give_way()
        done.append(f"{name}, second step")

    token = PRIORITY.set(Priority.BATCH)
    futures = [executor.submit(steps, "batch")]
    PRIORITY.reset(token)
    started.wait()
    futures.append(executor.submit(steps, "single"))
    futures.append(submit(executor, Priority.INTERACTIVE, done, "other single"))
    gate.set()
    for future in futures:
        future.result(60)
    assert done == [
        "batch, first step",
        *("single, first step", "single, second step", "other single"),
        "batch, second step",
    ]
    executor.shutdown()


async def test_work_whose_caller_has_gone_is_not_started() -> None:
    """A cancelled piece of work is skipped, and the next one runs."""
    executor, gate, done = PriorityExecutor("test"), threading.Event(), list[str]()
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(executor, gate.wait)
    gone = loop.run_in_executor(executor, done.append, "gone")
    live = loop.run_in_executor(executor, done.append, "stays")
    gone.cancel()
    await asyncio.sleep(0)  # The event loop delivers the cancellation in its next iteration.
    gate.set()
    await asyncio.gather(running, live)
    assert done == ["stays"]
    executor.shutdown()


async def test_an_error_reaches_the_caller() -> None:
    """Work that raises fails only its own future."""
    executor = PriorityExecutor("test")
    loop = asyncio.get_running_loop()
    results = await asyncio.gather(
        loop.run_in_executor(executor, int, "no number"),
        loop.run_in_executor(executor, int, "1"),
        return_exceptions=True,
    )
    assert isinstance(results[0], ValueError)
    assert results[1] == 1
    executor.shutdown()


def test_the_metadata_of_a_call_carries_its_priority() -> None:
    """A call from a task with batch priority has batch priority in the backend; no other call."""
    assert priority_of(priority_metadata()) is Priority.INTERACTIVE
    token = PRIORITY.set(Priority.BATCH)
    assert priority_of(priority_metadata()) is Priority.BATCH
    PRIORITY.reset(token)
    other = (("marquee-lane", "first class"), ("authorization", "x"))
    assert priority_of(other) is Priority.INTERACTIVE
