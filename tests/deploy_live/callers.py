"""Callers of the gateways: the client library as it comes, blocking and with asyncio."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deploy_check.system import ITEM_IDS, USER_IDS
from marquee import TLS, AsyncClient, Client, MarqueeError, Recommendations

_BLOCKING = 3
_PAUSE_S = 0.05


@dataclass
class Counts:
    """What came of calls.

    Attributes:
        calls: How many ended.
        failures: How many failed, by message.
        degraded: How many answers lacked a part of the ensemble.
        slowest: The longest time of one that was answered, in seconds.
    """

    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    slowest: float = 0.0

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.failures.total()


class Callers:
    """Threads that call until they are stopped; a context manager.

    Half of the calls are of known users, whose answers the gateway may have; the others are of
    visitors, whom both backends score.
    """

    def __init__(self, target: str, tls: TLS | bool) -> None:
        """Starts the threads, each with a client of its own.

        Args:
            target: What clients dial.
            tls: Their certificates.
        """
        self._target, self._tls = target, tls
        self._counts = Counts()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._block, args=(n,)) for n in range(_BLOCKING)),
            threading.Thread(target=lambda: asyncio.run(self._await())),
        ]
        for thread in self._threads:
            thread.start()

    def take(self) -> Counts:
        """What came of the calls since this was called last."""
        with self._lock:
            taken, self._counts = self._counts, Counts()
        return taken

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _block(self, seed: int) -> None:
        made = random.Random(seed)  # noqa: S311 - load, not secrets
        with Client(self._target, tls=self._tls) as client:
            while not self._stop.wait(_PAUSE_S):
                begun = time.monotonic()
                try:
                    answer = client.recommend(**_request(made))
                except MarqueeError as error:
                    self._count(begun, error=error)
                else:
                    self._count(begun, answer)

    async def _await(self) -> None:
        made = random.Random(_BLOCKING)  # noqa: S311 - load, not secrets
        async with AsyncClient(self._target, tls=self._tls) as client:
            while not self._stop.is_set():
                await asyncio.sleep(_PAUSE_S)
                begun = time.monotonic()
                try:
                    answer = await client.recommend(**_request(made))
                except MarqueeError as error:
                    self._count(begun, error=error)
                else:
                    self._count(begun, answer)

    def _count(
        self, begun: float, answer: Recommendations | None = None, error: MarqueeError | None = None
    ) -> None:
        took = time.monotonic() - begun
        with self._lock:
            self._counts.calls += 1
            if answer is not None:
                self._counts.degraded += answer.source.degraded
                self._counts.slowest = max(self._counts.slowest, took)
            if error is not None:
                self._counts.failures[f"{type(error).__name__}: {error}"] += 1


def _request(made: random.Random) -> dict[str, Any]:
    if made.random() < 0.5:
        return {"subject": made.choice(USER_IDS)}
    return {"ratings": {item: made.randint(1, 5) for item in made.sample(ITEM_IDS, 5)}}
