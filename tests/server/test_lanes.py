"""Lanes: which work goes first, and how a lane travels to another process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from marquee_services.server.lanes import LANE, Lane, LaneExecutor, lane_metadata, lane_of


def submit(executor: LaneExecutor, lane: Lane, done: list[str], name: str) -> Future[None]:
    """Queues work that notes its name."""
    token = LANE.set(lane)
    try:
        return executor.submit(done.append, name)
    finally:
        LANE.reset(token)


def test_work_for_batches_goes_last() -> None:
    """Single calls that were queued later are served first; each lane keeps its order."""
    executor, gate, done = LaneExecutor("test"), threading.Event(), list[str]()
    executor.submit(gate.wait)
    futures = [
        submit(executor, Lane.BATCH, done, "batch 1"),
        submit(executor, Lane.INTERACTIVE, done, "single 1"),
        submit(executor, Lane.BATCH, done, "batch 2"),
        submit(executor, Lane.INTERACTIVE, done, "single 2"),
    ]
    gate.set()
    for future in futures:
        future.result(60)
    assert done == ["single 1", "single 2", "batch 1", "batch 2"]
    executor.shutdown()


async def test_work_whose_caller_has_gone_is_not_begun() -> None:
    """A cancelled piece of work is skipped, and the next one runs."""
    executor, gate, done = LaneExecutor("test"), threading.Event(), list[str]()
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(executor, gate.wait)
    gone = loop.run_in_executor(executor, done.append, "gone")
    stays = loop.run_in_executor(executor, done.append, "stays")
    gone.cancel()
    await asyncio.sleep(0)  # The event loop hands the cancellation over in its next turn.
    gate.set()
    await asyncio.gather(running, stays)
    assert done == ["stays"]
    executor.shutdown()


async def test_an_error_reaches_the_caller() -> None:
    """Work that raises fails its own future only."""
    executor = LaneExecutor("test")
    loop = asyncio.get_running_loop()
    results = await asyncio.gather(
        loop.run_in_executor(executor, int, "no number"),
        loop.run_in_executor(executor, int, "1"),
        return_exceptions=True,
    )
    assert isinstance(results[0], ValueError)
    assert results[1] == 1
    executor.shutdown()


def test_the_metadata_of_a_call_names_its_lane() -> None:
    """What a caller in the batch lane sends puts the call into that lane; nothing else does."""
    assert lane_of(lane_metadata()) is Lane.INTERACTIVE
    token = LANE.set(Lane.BATCH)
    assert lane_of(lane_metadata()) is Lane.BATCH
    LANE.reset(token)
    assert lane_of((("marquee-lane", "first class"), ("authorization", "x"))) is Lane.INTERACTIVE
