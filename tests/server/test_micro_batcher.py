"""The coalescer: single calls become batches, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from marquee_services.server.micro_batcher import MicroBatcher, QueueFullError


class Recorder:
    """Sends batches that end when told to."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def send(self, key: str, queries: Sequence[int], timeout: float) -> list[int]:
        """Doubles each query."""
        self.batches.append((key, list(queries)))
        await self.gate.wait()
        if self.error:
            raise self.error
        return [2 * query for query in queries]


async def until(condition: object) -> None:
    """Lets other tasks run until a condition holds."""
    assert callable(condition)
    while not condition():
        await asyncio.sleep(0)


async def test_calls_that_wait_share_the_next_batch() -> None:
    """While one batch is under way the others gather, and go together."""
    recorder = Recorder()
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    first = asyncio.create_task(coalescer.call("a", 1, 5))
    await until(lambda: recorder.batches)
    others = [asyncio.create_task(coalescer.call("a", n, 5)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await first == 2
    assert await asyncio.gather(*others) == [4, 6, 8]
    assert recorder.batches == [("a", [1]), ("a", [2, 3, 4])]


async def test_a_batch_holds_no_more_than_its_weight() -> None:
    """What is too heavy for the present batch waits; what is too heavy for any goes alone."""
    recorder = Recorder()
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 4, 100)
    weights = (1, 2, 3, 1, 9, 1)
    calls = [
        asyncio.create_task(coalescer.call("a", n, 5, weight)) for n, weight in enumerate(weights)
    ]
    await until(lambda: recorder.batches)
    recorder.gate.set()
    assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8, 10]
    assert recorder.batches == [("a", [0, 1, 3]), ("a", [2, 5]), ("a", [4])]


async def test_keys_never_share_a_batch() -> None:
    """Users of different releases stay apart, and none is overtaken for ever."""
    recorder = Recorder()
    recorder.gate.set()
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    calls = [coalescer.call(key, n, 5) for n, key in enumerate("abab")]
    assert await asyncio.gather(*calls) == [0, 2, 4, 6]
    assert recorder.batches == [("a", [0, 2]), ("b", [1, 3])]


async def test_a_batch_has_at_most_its_size() -> None:
    """A long queue is cut into batches."""
    recorder = Recorder()
    recorder.gate.set()
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 2, 100)
    assert await asyncio.gather(*(coalescer.call("a", n, 5) for n in range(5))) == [0, 2, 4, 6, 8]
    assert [len(queries) for _, queries in recorder.batches] == [2, 2, 1]


async def test_the_queue_is_bounded() -> None:
    """What does not fit is refused at once."""
    recorder = Recorder()
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 1, 2)
    first = asyncio.create_task(coalescer.call("a", 0, 5))
    await until(lambda: recorder.batches)
    waiting = [asyncio.create_task(coalescer.call("a", n, 5)) for n in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await coalescer.call("a", 3, 5)
    recorder.gate.set()
    assert await asyncio.gather(first, *waiting) == [0, 2, 4]


async def test_a_caller_who_gives_up_is_not_sent() -> None:
    """Cancelled work stops before it reaches a backend."""
    recorder = Recorder()
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    first = asyncio.create_task(coalescer.call("a", 1, 5))
    await until(lambda: recorder.batches)
    given_up = asyncio.create_task(coalescer.call("a", 2, 5))
    stays = asyncio.create_task(coalescer.call("a", 3, 5))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    recorder.gate.set()
    assert (await first, await stays) == (2, 6)
    assert recorder.batches[1] == ("a", [3])


async def test_a_timeout_ends_one_call_and_not_its_batch() -> None:
    """A caller in a hurry does not take the others along."""
    recorder = Recorder()
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    calls = [
        asyncio.create_task(coalescer.call("a", 1, 0.01)),
        asyncio.create_task(coalescer.call("a", 2, 5)),
    ]
    with pytest.raises(TimeoutError):
        await calls[0]
    recorder.gate.set()
    assert await calls[1] == 4


async def test_a_failed_batch_fails_its_calls_and_the_next_one_goes() -> None:
    """An error reaches everybody in the batch, and nobody else."""
    recorder = Recorder()
    recorder.gate.set()
    recorder.error = ConnectionError("away")
    coalescer: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    results = await asyncio.gather(
        coalescer.call("a", 1, 5), coalescer.call("a", 2, 5), return_exceptions=True
    )
    assert all(isinstance(result, ConnectionError) for result in results)
    recorder.error = None
    assert await coalescer.call("a", 3, 5) == 6
