"""`TimeLimit` ends a block as `asyncio.timeout` would."""

from __future__ import annotations

import asyncio

import pytest

from marquee_services.server.time_limit import TimeLimit


async def test_a_block_that_exceeds_its_limit_raises_a_timeout() -> None:
    """The task continues afterwards and is not left cancelled."""
    with pytest.raises(TimeoutError), TimeLimit(0.01):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_limit_can_be_extended() -> None:
    """The first limit passes without effect, and the extended one ends the block."""
    first_passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, first_passed.set)

    async def wait() -> None:
        with TimeLimit(0.01) as limit:
            limit.extend(0.2)
            await first_passed.wait()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await wait()
    assert first_passed.is_set()


async def test_a_cancellation_is_not_turned_into_a_timeout() -> None:
    """A cancellation from outside the block is raised as such."""

    async def wait() -> None:
        with TimeLimit(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_of_the_block_pass_through() -> None:
    """A block that ends in time also leaves no timer behind."""
    with pytest.raises(KeyError), TimeLimit(0.01):
        raise KeyError
    with TimeLimit(0.01):
        pass
    await asyncio.sleep(0.03)
