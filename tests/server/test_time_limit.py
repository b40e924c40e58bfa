"""The time limit of calls ends them as `asyncio.timeout` would."""

from __future__ import annotations

import asyncio

import pytest

from marquee_services.server.time_limit import TimeLimit


async def test_a_block_that_takes_too_long_ends_with_a_timeout() -> None:
    """Its task goes on afterwards, and is not left cancelled."""
    with pytest.raises(TimeoutError), TimeLimit(0.01):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_an_extended_block_has_the_longer_time() -> None:
    """The first time passes without effect, and the second ends it."""
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


async def test_a_cancelled_caller_is_told_apart_from_a_timeout() -> None:
    """A cancellation from outside stays one."""

    async def wait() -> None:
        with TimeLimit(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_of_the_block_pass_through() -> None:
    """And a block that ends in time leaves no timer behind."""
    with pytest.raises(KeyError), TimeLimit(0.01):
        raise KeyError
    with TimeLimit(0.01):
        pass
    await asyncio.sleep(0.03)
