"""Micro-batching: concurrent calls share batches, and no call waits for a batch to fill."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import uvloop

from marquee_services.server.admission.priority import PRIORITY, Priority
from marquee_services.server.micro_batcher import MicroBatcher, QueueFullError


class Recorder:
    """Records batches, which return once the gate is open."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def send(self, key: str, queries: Sequence[int], timeout: float) -> list[int]:
        """Double each query."""
        self.batches.append((key, list(queries)))
        await self.gate.wait()
        if self.error:
            raise self.error
        return [2 * query for query in queries]


async def until(condition: object) -> None:
    """Run other tasks until a condition holds."""
    assert callable(condition)
    while not condition():
        await asyncio.sleep(0)


async def test_queued_calls_share_the_next_batch() -> None:
    """Calls that arrive while a batch is in progress are sent together when it returns."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    first = asyncio.create_task(batcher.call("a", 1, 5))
    await until(lambda: recorder.batches)
    others = [asyncio.create_task(batcher.call("a", n, 5)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await first == 2
    assert await asyncio.gather(*others) == [4, 6, 8]
    assert recorder.batches == [("a", [1]), ("a", [2, 3, 4])]


@pytest.mark.parametrize("gathers", [False, True])
async def test_calls_that_arrive_together_join_the_first_batch(gathers: bool) -> None:
    """If configured, an idle batcher waits as long as further calls keep arriving."""
    recorder = Recorder()
    recorder.gate.set()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100, gathers=gathers)
    calls = []
    for number in range(4):
        calls.append(asyncio.create_task(batcher.call("a", number, 60)))
        for _ in range(4):
            await asyncio.sleep(0)
    assert await asyncio.gather(*calls) == [0, 2, 4, 6]
    assert (recorder.batches == [("a", [0, 1, 2, 3])]) is gathers
    assert await batcher.call("a", 9, 60) == 18


async def test_a_full_batch_is_sent_immediately() -> None:
    """A full batch is sent although further calls arrive in every iteration of the event loop."""
    recorder = Recorder()
    recorder.gate.set()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 3, 100, gathers=True)
    calls = []
    for number in range(9):
        calls.append(asyncio.create_task(batcher.call("a", number, 60)))
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert max(len(queries) for _, queries in recorder.batches) == 3


async def test_each_call_times_out_at_its_own_deadline() -> None:
    """One timer serves all calls, but a short timeout does not wait for longer ones."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    long_call = asyncio.create_task(batcher.call("a", 1, 60))
    await until(lambda: recorder.batches)
    with pytest.raises(TimeoutError):
        await batcher.call("a", 2, 0.02)
    with pytest.raises(TimeoutError):
        await batcher.call("a", 3, 0.01)
    recorder.gate.set()
    assert await long_call == 2
    assert await batcher.call("a", 4, 60) == 8


def test_a_deadline_that_has_almost_passed_fails_only_its_own_call() -> None:
    """uvloop, on which the servers run, runs a timer that is due at once without a timer."""

    async def run() -> None:
        recorder = Recorder()
        batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
        late = asyncio.create_task(batcher.call("a", 1, 0.0001))
        other = asyncio.create_task(batcher.call("a", 2, 60))
        with pytest.raises(TimeoutError):
            await late
        recorder.gate.set()
        assert await other == 4

    uvloop.run(run())


async def test_the_weight_of_a_batch_is_bounded() -> None:
    """A call that does not fit waits, and a call that fits into no batch is sent separately."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 4, 100)
    weights = (1, 2, 3, 1, 9, 1)
    calls = [
        asyncio.create_task(batcher.call("a", n, 5, weight)) for n, weight in enumerate(weights)
    ]
    await until(lambda: recorder.batches)
    recorder.gate.set()
    assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8, 10]
    assert recorder.batches == [("a", [0, 1, 3]), ("a", [2, 5]), ("a", [4])]


async def test_keys_never_share_a_batch() -> None:
    """Each key has separate batches, and the key of the oldest call is served first."""
    recorder = Recorder()
    recorder.gate.set()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    calls = [batcher.call(key, n, 5) for n, key in enumerate("abab")]
    assert await asyncio.gather(*calls) == [0, 2, 4, 6]
    assert recorder.batches == [("a", [0, 2]), ("b", [1, 3])]


async def test_the_size_of_a_batch_is_bounded() -> None:
    """A long queue is divided into batches."""
    recorder = Recorder()
    recorder.gate.set()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 2, 100)
    assert await asyncio.gather(*(batcher.call("a", n, 5) for n in range(5))) == [0, 2, 4, 6, 8]
    assert [len(queries) for _, queries in recorder.batches] == [2, 2, 1]


async def test_the_queue_is_bounded() -> None:
    """A call is refused immediately if the queue is full."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 1, 2)
    first = asyncio.create_task(batcher.call("a", 0, 5))
    await until(lambda: recorder.batches)
    waiting = [asyncio.create_task(batcher.call("a", n, 5)) for n in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await batcher.call("a", 3, 5)
    recorder.gate.set()
    assert await asyncio.gather(first, *waiting) == [0, 2, 4]


async def test_a_cancelled_call_is_not_sent() -> None:
    """A call that is cancelled while it is queued is never sent."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    first = asyncio.create_task(batcher.call("a", 1, 5))
    await until(lambda: recorder.batches)
    given_up = asyncio.create_task(batcher.call("a", 2, 5))
    live = asyncio.create_task(batcher.call("a", 3, 5))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    recorder.gate.set()
    assert (await first, await live) == (2, 6)
    assert recorder.batches[1] == ("a", [3])


async def test_a_timeout_ends_one_call_and_not_its_batch() -> None:
    """The other calls of the batch still get their answers."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    calls = [
        asyncio.create_task(batcher.call("a", 1, 0.01)),
        asyncio.create_task(batcher.call("a", 2, 5)),
    ]
    with pytest.raises(TimeoutError):
        await calls[0]
    recorder.gate.set()
    assert await calls[1] == 4


async def test_a_failed_batch_fails_its_calls_and_the_next_one_succeeds() -> None:
    """An error fails the calls of its batch only, and later calls succeed."""
    recorder = Recorder()
    recorder.gate.set()
    recorder.error = ConnectionError("away")
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    results = await asyncio.gather(
        batcher.call("a", 1, 5), batcher.call("a", 2, 5), return_exceptions=True
    )
    assert all(isinstance(result, ConnectionError) for result in results)
    recorder.error = None
    assert await batcher.call("a", 3, 5) == 6


async def test_an_abandoned_batch_is_cancelled() -> None:
    """When the last caller of a batch in progress is cancelled, the batch is cancelled."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 10, 100)
    only_call = asyncio.create_task(batcher.call("a", 1, 5))
    await until(lambda: recorder.batches)
    only_call.cancel()
    # Without the cancellation, the next call would wait for the first batch forever.
    later = asyncio.create_task(batcher.call("a", 2, 60))
    await until(lambda: len(recorder.batches) == 2)
    recorder.gate.set()
    assert await later == 4


async def test_a_call_that_cannot_be_answered_in_time_is_not_sent() -> None:
    """A call is dropped if it has less time left than a batch takes, and others are sent."""
    sent: list[int] = []

    async def send(key: str, queries: Sequence[int], timeout: float) -> list[int]:
        await asyncio.sleep(0.05)
        sent.extend(queries)
        return list(queries)

    batcher: MicroBatcher[str, int, int] = MicroBatcher(send, 10, 100)
    assert await batcher.call("a", 1, 60) == 1
    late: int | BaseException
    timely: int | BaseException
    late, timely = await asyncio.gather(
        batcher.call("a", 2, 0.02), batcher.call("a", 3, 60), return_exceptions=True
    )
    assert isinstance(late, TimeoutError)
    assert timely == 3
    assert sent == [1, 3]


async def test_single_calls_do_not_wait_for_batches() -> None:
    """Single calls are sent while batch calls are in progress, and further batch calls wait."""
    recorder = Recorder()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(recorder.send, 32, 100)

    async def in_batch(query: int) -> int:
        PRIORITY.set(Priority.BATCH)
        return await batcher.call("a", query, 60)

    slow = [asyncio.create_task(in_batch(n)) for n in range(10)]
    await until(lambda: recorder.batches)
    single = asyncio.create_task(batcher.call("a", 100, 60))
    await until(lambda: len(recorder.batches) == 2)
    assert recorder.batches == [("a", [0, 1, 2, 3]), ("a", [100])]
    recorder.gate.set()
    assert await single == 200
    assert await asyncio.gather(*slow) == [2 * n for n in range(10)]
    # Small, since a batch that has been sent is not interrupted.
    assert max(len(queries) for _, queries in recorder.batches) <= 4
