"""Callers that use the client library with its defaults, blocking and with asyncio."""

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
    """How calls ended.

    Attributes:
        calls: Number of finished calls.
        failures: Number of failed calls by error message.
        degraded: Number of degraded answers.
        slowest: Longest latency of an answered call, in seconds.
    """

    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    slowest: float = 0.0

    @property
    def failed(self) -> int:
        """Number of failed calls."""
        return self.failures.total()


class Callers:
    """Threads that call until they are stopped; a context manager.

    Half of the calls are for known users, whose answers may be cached or precomputed; the others
    are for visitors, whose answers need both backends.
    """

    def __init__(self, target: str, tls: TLS | bool) -> None:
        """Starts the threads, each with its own client.

        Args:
            target: The clients' target.
            tls: The clients' certificates.
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
        """Returns the counts since the last call of this method, and resets them."""
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
        rng = random.Random(seed)  # noqa: S311 - load, not secrets
        with Client(self._target, tls=self._tls) as client:
            while not self._stop.wait(_PAUSE_S):
                begun = time.monotonic()
                try:
                    answer = client.recommend(**_request(rng))
                except MarqueeError as error:
                    self._count(begun, error=error)
                else:
                    self._count(begun, answer)

    async def _await(self) -> None:
        rng = random.Random(_BLOCKING)  # noqa: S311 - load, not secrets
        async with AsyncClient(self._target, tls=self._tls) as client:
            while not self._stop.is_set():
                await asyncio.sleep(_PAUSE_S)
                begun = time.monotonic()
                try:
                    answer = await client.recommend(**_request(rng))
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


def _request(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"subject": rng.choice(USER_IDS)}
    return {"ratings": {item: rng.randint(1, 5) for item in rng.sample(ITEM_IDS, 5)}}
