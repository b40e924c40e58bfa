"""Adaptive throttling: a client does not send calls that gateways would refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import marquee
from marquee._throttling import THROTTLED, Throttle
from marquee.testing import FakeGateway
from toy.clock import Clock

DEADLINE_S = 60.0
BUSY = marquee.Overloaded("too many calls", reason="OVERLOADED", retry_after=0.2)


@pytest.fixture(autouse=True)
def _unforgotten(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember the calls of a test with a gateway, however long they take."""
    if "gateway" in request.fixturenames:
        monkeypatch.setattr("marquee._throttling._MEMORY_S", 1e9)


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway."""
    with FakeGateway() as running:
        yield running


def run(throttle: Throttle, clock: Clock, calls: int, answer_every: int) -> int:
    """Make calls, a fraction of which is accepted; return how many were sent."""
    sent = 0
    for _ in range(calls):
        clock.now += 0.001
        try:
            throttle.check()
        except marquee.Overloaded:
            continue
        sent += 1
        throttle.record(None if sent % answer_every == 0 else BUSY)
    return sent


def draws() -> Callable[[], float]:
    """Return a source of evenly distributed numbers."""
    state = 0.0

    def draw() -> float:
        nonlocal state
        state = (state + 0.6180339887) % 1
        return state

    return draw


def test_the_client_sends_about_twice_what_is_accepted() -> None:
    """If at most a tenth of the offered calls is accepted, about a fifth is sent."""
    clock = Clock(100.0)
    throttle = Throttle(clock, draws())
    sent = accepted = 0
    for ms in range(5_000):
        clock.now += 0.001
        try:
            throttle.check()
        except marquee.Overloaded:
            continue
        sent += ms >= 1_000
        is_accepted = accepted <= ms // 10
        accepted += is_accepted
        throttle.record(None if is_accepted else BUSY)
    assert 0.15 < sent / 4_000 < 0.25
    assert throttle.refused > 3_000


def test_a_client_that_is_not_refused_is_never_throttled() -> None:
    """Other errors, and calls in progress, do not count as refusals."""
    throttle = Throttle(Clock(100.0), lambda: 0.0)
    for error in (marquee.NotFound("no"), marquee.DeadlineExceeded("late"), None):
        for _ in range(100):
            throttle.check()
        for _ in range(100):
            throttle.record(error)
    assert throttle.refused == 0


def test_a_few_refusals_throttle_nothing() -> None:
    """A client that makes few calls sends all of them."""
    throttle = Throttle(Clock(100.0), lambda: 0.0)
    for _ in range(4):
        throttle.check()
        throttle.record(BUSY)
    throttle.check()


def test_refusals_are_forgotten_soon_after_the_overload() -> None:
    """Two seconds after gateways accept everything again, everything is sent."""
    clock = Clock(100.0)
    throttle = Throttle(clock, draws())
    assert run(throttle, clock, 5_000, answer_every=20) < 2_000
    run(throttle, clock, 2_000, answer_every=1)
    assert run(throttle, clock, 1_000, answer_every=1) == 1_000


def test_a_throttled_call_says_that_it_was_not_sent(gateway: FakeGateway) -> None:
    """The error is that of an overloaded server, with a reason of its own and its advice."""
    gateway.on("Recommend", BUSY)
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        errors = [refusal(client) for _ in range(200)]
        throttled = [error for error in errors if error.reason == THROTTLED]
        assert len(gateway.calls) == len(errors) - len(throttled) < 100
        assert client.throttled_calls == len(throttled)
        assert all(error.retry_after == 0.2 for error in throttled)
        assert all(error.grpc_error is None for error in throttled)
        client.status()  # It is always sent.


def refusal(client: marquee.Client) -> marquee.Overloaded:
    """Make a call that is refused, and return its error."""
    with pytest.raises(marquee.Overloaded) as caught:
        client.recommend("42")
    return caught.value


async def test_an_asyncio_client_is_throttled_too(gateway: FakeGateway) -> None:
    """Its concurrent calls share the throttle."""
    gateway.on("Recommend", BUSY)

    async def call(client: Any) -> None:
        for _ in range(50):
            with pytest.raises(marquee.Overloaded):
                await client.recommend("42")

    async with marquee.AsyncClient(gateway.address, timeout=DEADLINE_S) as client:
        await asyncio.gather(*(call(client) for _ in range(4)))
        assert len(gateway.calls) == 200 - client.throttled_calls < 100


def test_throttling_can_be_turned_off(gateway: FakeGateway) -> None:
    """Every call is sent."""
    gateway.on("Recommend", BUSY)
    with marquee.Client(gateway.address, timeout=DEADLINE_S, throttle=False) as client:
        for _ in range(50):
            refusal(client)
        assert (len(gateway.calls), client.throttled_calls) == (50, 0)
