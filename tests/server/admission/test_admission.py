"""Which calls the limit admits, queues and refuses, in front of a simulated server.

The server works on one call at a time. An answer takes 2 ms of its time and 6 ms elsewhere; a
refusal takes 0.2 ms. So its peak is 500 answers a second, and an answer without load takes 8 ms.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_services.errors import Busy
from marquee_services.server.admission.adaptive_limit import AdaptiveLimit
from server.virtual_time import run_virtually

_ANSWER_S, _ELSEWHERE_S, _REFUSAL_S = 0.002, 0.006, 0.0002
_PEAK = 1 / _ANSWER_S
_IN_FLIGHT = 32
# More calls than this do not reach the server: 8 connections with 32 streams each.
_STREAMS = 256


@dataclass
class Outcome:
    """How calls ended: the start and the duration of each, in seconds."""

    answers: list[tuple[float, float]] = field(default_factory=list)
    refusals: list[tuple[float, float]] = field(default_factory=list)

    def since(self, start: float) -> Outcome:
        """Return only the calls that started after a time."""
        return Outcome(
            [call for call in self.answers if call[0] >= start],
            [call for call in self.refusals if call[0] >= start],
        )

    @staticmethod
    def p99(calls: list[tuple[float, float]]) -> float:
        """Return the 99th percentile of the durations."""
        return float(np.percentile([seconds for _, seconds in calls], 99))


class Server:
    """A simulated server behind the limit."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.limit = AdaptiveLimit(
            8, 256, tolerance=2.5, acceptable_s=0.0, min_in_flight=_IN_FLIGHT, clock=self._loop.time
        )
        self.outcome = Outcome()
        self.held_back = 0
        self._calls = 0
        self._busy_until = 0.0

    async def call(self) -> None:
        """Make a call, and record how it ended."""
        if self._calls == _STREAMS:
            self.held_back += 1
            return
        start = self._loop.time()
        self._calls += 1
        try:
            async with self.limit.admit("call"):
                await self._work(_ANSWER_S)
                await asyncio.sleep(_ELSEWHERE_S)
        except Busy:
            await self._work(_REFUSAL_S)
            self.outcome.refusals.append((start, self._loop.time() - start))
        else:
            self.outcome.answers.append((start, self._loop.time() - start))
        finally:
            self._calls -= 1

    async def closed(self, callers: int, seconds: float) -> None:
        """Run callers that each make their next call as soon as the previous one has ended."""
        end = self._loop.time() + seconds

        async def caller() -> None:
            while self._loop.time() < end:
                await self.call()

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def open(self, rate: float, seconds: float, seed: int = 0) -> None:
        """Let calls arrive at random at an average rate per second."""
        pauses = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
        calls = []
        for pause in pauses:
            await asyncio.sleep(float(pause))
            calls.append(asyncio.create_task(self.call()))
        await asyncio.gather(*calls)

    async def _work(self, seconds: float) -> None:
        self._busy_until = max(self._busy_until, self._loop.time()) + seconds
        await asyncio.sleep(self._busy_until - self._loop.time())


async def _lightly_loaded_server() -> Server:
    """Return a server that has had light load, so it knows the unloaded latency."""
    server = Server()
    await server.open(0.1 * _PEAK, 3)
    server.outcome = Outcome()
    return server


@given(callers=st.integers(1, _IN_FLIGHT), seconds=st.floats(0.5, 1.5))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_a_closed_loop_is_not_refused(callers: int, seconds: float) -> None:
    """Callers that wait for each answer are never refused below the allowed calls in flight."""

    async def main() -> Outcome:
        server = await _lightly_loaded_server()
        await server.closed(callers, seconds)
        return server.outcome

    outcome = run_virtually(main())
    assert not outcome.refusals
    possible = min(_PEAK, callers / (_ANSWER_S + _ELSEWHERE_S))
    assert len(outcome.answers) >= 0.9 * possible * seconds


@pytest.mark.parametrize("factor", [3, 5, 10])
def test_latency_and_goodput_hold_under_overload(factor: float) -> None:
    """Latency is at most three times that without load, and most time is spent on answers."""

    async def main() -> tuple[Outcome, Outcome]:
        server = await _lightly_loaded_server()
        await server.open(0.1 * _PEAK, 2)
        calm, server.outcome = server.outcome, Outcome()
        start = asyncio.get_running_loop().time()
        await server.open(factor * _PEAK, 2)
        return calm, server.outcome.since(start + 1)

    calm, loaded = run_virtually(main())
    assert len(loaded.answers) >= 0.7 * _PEAK
    assert loaded.p99(loaded.answers) <= 3 * calm.p99(calm.answers)
    # All streams are occupied, and two calls are refused for each answer.
    assert loaded.p99(loaded.refusals) <= 1.3 * _STREAMS / (2 * _PEAK)


def test_refusals_are_quick_at_moderate_overload() -> None:
    """At twice the peak, a refused call has waited for at most a few times an answer's duration."""

    async def main() -> Outcome:
        server = await _lightly_loaded_server()
        await server.open(2 * _PEAK, 3)
        return server.outcome

    outcome = run_virtually(main())
    assert outcome.refusals
    assert np.median([seconds for _, seconds in outcome.refusals]) < 0.05
    assert len(outcome.answers) >= 0.8 * _PEAK * 3


def test_the_limit_recovers_from_overload() -> None:
    """One second after an overload, no call is refused and none is slow."""

    async def main() -> Outcome:
        server = await _lightly_loaded_server()
        await server.open(5 * _PEAK, 1)
        server.outcome = Outcome()
        await asyncio.sleep(1)
        await server.open(0.3 * _PEAK, 1)
        return server.outcome

    outcome = run_virtually(main())
    assert not outcome.refusals
    assert outcome.p99(outcome.answers) < 3 * (_ANSWER_S + _ELSEWHERE_S)


def test_a_closed_loop_is_not_refused_after_overload() -> None:
    """A closed loop is not mistaken for the preceding overload."""

    async def main() -> Outcome:
        server = await _lightly_loaded_server()
        await server.open(5 * _PEAK, 1)
        server.outcome = Outcome()
        await server.closed(_IN_FLIGHT, 2.5)
        return server.outcome.since(asyncio.get_running_loop().time() - 1)

    outcome = run_virtually(main())
    assert not outcome.refusals
    assert len(outcome.answers) > 0.9 * _PEAK


def test_refused_callers_are_slowed_down() -> None:
    """Of twice as many closed-loop callers, many are refused and call again only after a delay."""

    async def main() -> Outcome:
        server = await _lightly_loaded_server()
        await server.closed(2 * _IN_FLIGHT, 2)
        return server.outcome

    outcome = run_virtually(main())
    assert len(outcome.answers) > 0.75 * _PEAK * 2


@given(rates=st.lists(st.floats(1, 3_000), min_size=1, max_size=3), seed=st.integers(0, 100))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_every_call_is_answered_or_refused(rates: list[float], seed: int) -> None:
    """Under any load each call is answered or refused, and afterwards none is in progress."""

    async def main() -> Server:
        server = Server()
        for rate in rates:
            await server.open(rate, 0.3, seed)
        return server

    server = run_virtually(main())
    begun = sum(int(rate * 0.3) for rate in rates)
    ended = len(server.outcome.answers) + len(server.outcome.refusals)
    assert ended == begun - server.held_back
    assert (server.limit.in_progress, server.limit.waiting) == (0, 0)
    assert server.limit.refused == len(server.outcome.refusals)
