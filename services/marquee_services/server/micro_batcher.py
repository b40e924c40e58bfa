"""Gathers calls that wait for the same thing into one.

There is no timer: while one batch is under way the next gathers, and goes as soon as it may.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_Q = TypeVar("_Q")
_A = TypeVar("_A")


class QueueFullError(Exception):
    """As many calls wait as may."""


@dataclass
class _Waiting(Generic[_K, _Q, _A]):
    key: _K
    query: _Q
    weight: int
    deadline: float
    answer: asyncio.Future[_A]


class MicroBatcher(Generic[_K, _Q, _A]):
    """Turns single calls into batches of the same key."""

    def __init__(
        self,
        send: Callable[[_K, Sequence[_Q], float], Awaitable[Sequence[_A]]],
        max_batch: int,
        max_waiting: int,
    ) -> None:
        """Takes how to send a batch.

        Args:
            send: Sends queries of one key with a timeout in seconds; answers one for each.
            max_batch: Most weight in a batch; a query that weighs more goes alone.
            max_waiting: Most queries that wait, those under way not counted.
        """
        self._send = send
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting[_K, _Q, _A]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def call(self, key: _K, query: _Q, timeout: float, weight: int = 1) -> _A:
        """Sends a query with the next batch of its key.

        Args:
            key: Only queries of one key share a batch.
            query: The query.
            timeout: Seconds that this caller waits.
            weight: How much of a batch the query takes.

        Raises:
            TimeoutError: There was no answer in that time; others of the batch go on.
            QueueFullError: As many calls wait as may.
            Exception: What `send` raised for the batch.
        """
        if len(self._waiting) >= self._max_waiting:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_A] = loop.create_future()
        waiting = _Waiting(key, query, weight, loop.time() + timeout, answer)
        self._waiting.append(waiting)
        if self._sender is None:
            self._sender = loop.create_task(self._send_all())
        async with asyncio.timeout(timeout):
            return await answer

    async def _send_all(self) -> None:
        try:
            while batch := self._next_batch():
                await self._send_batch(batch)
        finally:
            self._sender = None

    def _next_batch(self) -> list[_Waiting[_K, _Q, _A]]:
        """The longest-waiting call and others of its key; callers who gave up are dropped."""
        batch: list[_Waiting[_K, _Q, _A]] = []
        others: list[_Waiting[_K, _Q, _A]] = []
        left = self._max_batch
        while self._waiting and left > 0:
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                continue
            if not batch or (waiting.key == batch[0].key and waiting.weight <= left):
                batch.append(waiting)
                left -= waiting.weight
            else:
                others.append(waiting)
        self._waiting.extendleft(reversed(others))
        return batch

    async def _send_batch(self, batch: list[_Waiting[_K, _Q, _A]]) -> None:
        timeout = max(w.deadline for w in batch) - asyncio.get_running_loop().time()
        try:
            answers = await self._send(batch[0].key, [w.query for w in batch], max(timeout, 0.001))
        except Exception as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
