"""Micro-batching: combines concurrent calls into batches, without a timer.

An idle batcher sends a call immediately, as a batch of one. While that batch is in progress,
further calls are queued. When the batch returns, the next one takes as many queued calls as fit. A
call therefore never waits for a batch to fill, and batches grow with the load: the longer a batch
takes, the more calls the next one combines.

If calls arrive from the network, an idle batcher first collects those that gRPC is about to hand
over. Otherwise every second batch would hold a single call, at several times the cost per call.

Each priority (see `priority.py`) has a separate queue and separate batches, so an interactive call
never waits behind subjects of a BatchRecommend. Batches with batch priority are small, because a
batch in progress is not interrupted.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from marquee.v1 import errors_pb2
from marquee_services.errors import Overloaded
from marquee_services.server.admission.priority import PRIORITY, Priority
from marquee_services.server.admission.queue_metrics import QueueMeter
from marquee_services.server.telemetry import call_scope
from marquee_services.server.telemetry.call_scope import CallScope

_K = TypeVar("_K", bound=Hashable)
_Q = TypeVar("_Q")
_A = TypeVar("_A")

_BATCH_PRIORITY_WEIGHT = 4
"""Largest total weight of a batch with batch priority."""

# A batch is expected to take as long as the fastest of the recent ones. The estimate is lowered by
# this factor for each call that is dropped because of it, so that it cannot exclude calls forever.
_ESTIMATE_DECAY = 0.9
_FASTEST_OF = 8
# gRPC hands over the next call within this many turns of the event loop. Without a call, they take
# about 50 µs.
_TURNS = 6
# The resolution of the event loop's clock, in seconds.
_CLOCK_S = 0.001


class QueueFullError(Overloaded):
    """The queue of a batcher is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = errors_pb2.ErrorReason.ERROR_REASON_OVERLOADED
    key, text = "limit", "the limit of {} waiting calls is reached"


@dataclass(slots=True)
class _Call(Generic[_K, _Q, _A]):
    """A queued call.

    Attributes:
        key: Only calls with equal keys share a batch.
        query: The query.
        weight: What the query adds to the weight of its batch.
        deadline: When the caller stops waiting, in seconds of the event loop's clock.
        queued_at: When the call was queued, by the same clock.
        scope: The gRPC call on whose behalf it is made.
        answer: Receives the answer.
    """

    key: _K
    query: _Q
    weight: int
    deadline: float
    queued_at: float
    scope: CallScope | None
    answer: asyncio.Future[_A]


class MicroBatcher(Generic[_K, _Q, _A]):
    """Sends concurrent calls in batches, one batch at a time; see the module's docstring."""

    def __init__(
        self,
        send: Callable[[_K, Sequence[_Q], float], Awaitable[Sequence[_A]]],
        max_batch: int,
        max_waiting: int,
        meter: QueueMeter | None = None,
        gathers: bool = False,
    ) -> None:
        """Creates a batcher with empty queues.

        Args:
            send: Sends the queries of a batch, given their key and a timeout in seconds. Returns
                one answer for each query, in their order.
            max_batch: Largest total weight of a batch. A heavier query is sent as a batch of one.
            max_waiting: Largest number of queued calls per priority, not counting the batch in
                progress.
            meter: Measures the queues; None to measure nothing.
            gathers: Whether an idle batcher first collects the calls that gRPC is about to hand
                over.
        """
        small = min(max_batch, _BATCH_PRIORITY_WEIGHT)
        self._queues = {
            Priority.INTERACTIVE: _PriorityBatcher(send, max_batch, max_waiting, meter, gathers),
            Priority.BATCH: _PriorityBatcher(send, small, max_waiting, meter, gathers=False),
        }
        if meter is not None:
            meter.watch(lambda: sum(queue.waiting for queue in self._queues.values()), max_waiting)

    def call(self, key: _K, query: _Q, timeout: float, weight: int = 1) -> Coroutine[Any, Any, _A]:
        """Queues a query with the priority of the current task, and returns its answer.

        Args:
            key: Only queries with equal keys share a batch.
            query: The query.
            timeout: Seconds to wait for the answer.
            weight: What the query adds to the weight of its batch.

        Raises:
            TimeoutError: No answer arrived within the timeout, or it could not arrive in time. The
                batch continues for its other callers.
            QueueFullError: The queue is full.
            Exception: The error that `send` raised for the batch.
        """
        return self._queues[PRIORITY.get()].call(key, query, timeout, weight)


class _PriorityBatcher(Generic[_K, _Q, _A]):
    """The batches of one priority."""

    def __init__(
        self,
        send: Callable[[_K, Sequence[_Q], float], Awaitable[Sequence[_A]]],
        max_batch: int,
        max_waiting: int,
        meter: QueueMeter | None,
        gathers: bool,
    ) -> None:
        self._meter = meter
        self._gathers = gathers
        self._send = send
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._queue: deque[_Call[_K, _Q, _A]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._last_seconds: deque[float] = deque(maxlen=_FASTEST_OF)
        self._expected_s = 0.0
        # The calls of the batch in progress, its task, and the next deadline with its timer.
        self._sent: list[_Call[_K, _Q, _A]] = []
        self._sending: asyncio.Future[Sequence[_A]] | None = None
        self._expires_at = math.inf
        self._expiry: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return len(self._queue)

    async def call(self, key: _K, query: _Q, timeout: float, weight: int) -> _A:
        """Queues a query, and returns its answer; see `MicroBatcher.call`."""
        if len(self._queue) >= self._max_waiting:
            raise QueueFullError(str(self._max_waiting))
        loop = asyncio.get_running_loop()
        now = loop.time()
        answer: asyncio.Future[_A] = loop.create_future()
        self._queue.append(
            _Call(key, query, weight, now + timeout, now, call_scope.current(), answer)
        )
        if self._sender is None:
            self._sender = loop.create_task(self._send_batches())
        if now + timeout < self._expires_at:
            self._expire_at(now + timeout)
        try:
            return await answer
        except asyncio.CancelledError:
            self._cancel_if_abandoned()
            raise
        finally:
            # An error's traceback holds this frame, whose future holds the error: they would keep
            # each other, and what the caller's frames hold, in memory.
            del answer

    def _cancel_if_abandoned(self) -> None:
        """Cancels the batch in progress if nobody waits for an answer any more."""
        if self._sending is not None and all(call.answer.done() for call in self._sent):
            self._sending.cancel()  # Has no effect once it is done.

    def _expire_at(self, when: float) -> None:
        """Sets the timer that all calls share; a timer for each call would cost too much."""
        if self._expiry is not None:
            self._expiry.cancel()
        loop = asyncio.get_running_loop()
        self._expires_at = when
        # Within a millisecond, uvloop returns a handle that does not know its time.
        self._expiry = loop.call_at(when, self._expire, context=contextvars.Context())

    def _expire(self) -> None:
        """Ends the calls whose deadlines have passed."""
        self._expiry, self._expires_at = None, math.inf
        # The timer may fire a little early, because the loop's clock counts milliseconds.
        now = asyncio.get_running_loop().time() + _CLOCK_S
        waiting = [call for call in (*self._sent, *self._queue) if not call.answer.done()]
        for call in waiting:
            if call.deadline <= now:
                call.answer.set_exception(TimeoutError())
        self._cancel_if_abandoned()
        left = [call.deadline for call in waiting if call.deadline > now]
        if left:
            self._expire_at(min(left))

    async def _send_batches(self) -> None:
        """Sends batch after batch until the queue is empty."""
        try:
            if self._gathers:
                await self._gather()
            while batch := self._next_batch():
                await self._send_batch(batch)
        finally:
            self._sender, self._sent, self._sending = None, [], None

    async def _gather(self) -> None:
        """Waits until no more calls arrive, or there are enough for a full batch."""
        before = 0
        while before < len(self._queue) < self._max_batch:
            before = len(self._queue)
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    def _next_batch(self) -> list[_Call[_K, _Q, _A]]:
        """Removes the oldest call from the queue, and the calls with its key that fit in the batch.

        Abandoned calls are dropped, and so are calls whose answers would come too late.
        """
        now = asyncio.get_running_loop().time()
        batch: list[_Call[_K, _Q, _A]] = []
        others: list[_Call[_K, _Q, _A]] = []
        remaining = self._max_batch
        while self._queue and remaining > 0:
            call = self._queue.popleft()
            if call.answer.done():
                continue
            if call.deadline < now + self._expected_s:
                call.answer.set_exception(TimeoutError())
                self._expected_s *= _ESTIMATE_DECAY
                continue
            if not batch or (call.key == batch[0].key and call.weight <= remaining):
                batch.append(call)
                remaining -= call.weight
            else:
                others.append(call)
        self._queue.extendleft(reversed(others))
        return batch

    async def _send_batch(self, batch: list[_Call[_K, _Q, _A]]) -> None:
        call_scope.enter([call.scope for call in batch])
        loop = asyncio.get_running_loop()
        start = loop.time()
        timeout = max(call.deadline for call in batch) - start
        if self._meter is not None:
            waits = [start - call.queued_at for call in batch]
            self._meter.record_batch(waits, sum(call.weight for call in batch))
        sending = asyncio.ensure_future(
            self._send(batch[0].key, [call.query for call in batch], max(timeout, 0.001))
        )
        self._sent, self._sending = batch, sending
        try:
            answers = await sending
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return  # All calls of the batch were abandoned.
        except Exception as error:
            for call in batch:
                if not call.answer.done():
                    call.answer.set_exception(error)
            del sending, batch, call  # The error's traceback holds this frame, as in `call`.
            return
        self._last_seconds.append(loop.time() - start)
        self._expected_s = min(self._last_seconds)
        for call, answer in zip(batch, answers, strict=True):
            if not call.answer.done():
                call.answer.set_result(answer)
