"""Work in threads does not block the event loop, and its queue is bounded."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest

from marquee_services.server.micro_batcher import QueueFullError
from marquee_services.server.worker_threads import WorkerThreads

WAIT_S = 30.0


async def test_the_queue_is_bounded_and_abandoned_work_is_dropped() -> None:
    """Work beyond the bound is refused, and work whose caller has gone is not started."""
    threads = WorkerThreads("test", threads=1, max_waiting=2)
    begun, may_end, done = threading.Event(), threading.Event(), list[str]()

    def first() -> str:
        begun.set()
        assert may_end.wait(WAIT_S)
        return "first"

    running = asyncio.create_task(threads.run(first))
    waiting = asyncio.create_task(threads.run(lambda: done.append("waiting")))
    while not begun.is_set():  # The event loop runs while the thread works.
        await asyncio.sleep(0.001)
    with pytest.raises(QueueFullError, match="limit of 2"):
        await threads.run(lambda: done.append("refused"))
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    next_one = asyncio.create_task(threads.run(lambda: done.append("next")))
    may_end.set()
    assert await running == "first"
    await next_one
    assert done == ["next"]
    threads.close()


async def test_an_error_reaches_the_caller() -> None:
    """An exception in the work is raised in the caller, and the thread continues."""
    threads = WorkerThreads("test", threads=1, max_waiting=1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert await threads.run(lambda: 1 // 1) == 1
    threads.close()
