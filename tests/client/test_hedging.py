"""Hedging: reads whose gateway does not answer are sent to another one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import marquee
from marquee._channel import has_one_address
from marquee._hedging import HedgeBudget
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb

# Generous, so that no result depends on the speed of the machine.
DEADLINE_S = 120.0


@pytest.fixture
def gateways() -> Iterator[tuple[FakeGateway, FakeGateway]]:
    """Two gateways, of which the first never answers Recommend, as if it were frozen."""
    release = threading.Event()

    def hang(_: object) -> tuple[()]:
        release.wait(timeout=2 * DEADLINE_S)
        return ()

    with FakeGateway() as frozen, FakeGateway() as well:
        frozen.on("Recommend", hang)
        well.on("Recommend", pb.RecommendResponse(recommendation_id="well"))
        yield frozen, well
        release.set()


def target_of(*gateways: FakeGateway) -> str:
    """Return the target of a client that balances over gateways."""
    return "ipv4:" + ",".join(gateway.address for gateway in gateways)


def received(gateway: FakeGateway, method: str) -> int:
    """Return how many calls of a method a gateway has received."""
    return sum(call.method == method for call in gateway.calls)


def test_a_read_is_answered_by_another_gateway(gateways: tuple[FakeGateway, FakeGateway]) -> None:
    """A frozen gateway costs a blocking client some time, but no failed call."""
    frozen, well = gateways
    with marquee.Client(target_of(*gateways), timeout=DEADLINE_S, hedge_after=0.05) as client:
        while not (received(frozen, "GetStatus") and received(well, "GetStatus")):
            client.status()
        for _ in range(6):
            assert client.recommend("42").recommendation_id == "well"
    assert received(frozen, "Recommend") >= 3


async def test_an_awaited_read_is_answered_by_another_gateway(
    gateways: tuple[FakeGateway, FakeGateway],
) -> None:
    """Hedging works the same for tasks that share an asyncio client."""
    frozen, well = gateways
    target = target_of(*gateways)
    async with marquee.AsyncClient(target, timeout=DEADLINE_S, hedge_after=0.05) as client:
        while not (received(frozen, "GetStatus") and received(well, "GetStatus")):
            await client.status()
        answers = await asyncio.gather(*(client.recommend(str(n)) for n in range(12)))
        assert {answer.recommendation_id for answer in answers} == {"well"}
    assert received(frozen, "Recommend") >= 6


async def test_an_error_about_the_request_is_final(
    gateways: tuple[FakeGateway, FakeGateway],
) -> None:
    """If the second gateway refuses the request, the call ends as if the first had refused it."""
    _, well = gateways
    well.on("Recommend", marquee.InvalidArgument("no such field"))
    with (
        marquee.Client(target_of(*gateways), timeout=DEADLINE_S, hedge_after=0.05) as client,
        pytest.raises(marquee.InvalidArgument),
    ):
        client.recommend("42")
    async with marquee.AsyncClient(
        target_of(*gateways), timeout=DEADLINE_S, hedge_after=0.05
    ) as other:
        with pytest.raises(marquee.InvalidArgument):
            await other.recommend("42")


def test_writes_are_not_hedged(gateways: tuple[FakeGateway, FakeGateway]) -> None:
    """A write that is late is sent only once, so its answer says what it did."""
    slow, other = gateways
    slow.close()
    released = threading.Timer(0.5, lambda: None)
    released.start()

    def late(_: object) -> tuple[()]:
        released.join()
        return ()

    other.on("RecordFeedback", late)
    with marquee.Client(target_of(*gateways), timeout=DEADLINE_S, hedge_after=0.01) as client:
        client.feedback.rate("42", {"7": 5.0})
    assert received(other, "RecordFeedback") == 1


def test_hedges_have_a_budget() -> None:
    """If every read is late, one in twenty is hedged after the first fifty."""
    budget = HedgeBudget()
    hedged = 0
    for _ in range(1_000):
        budget.add_call()
        hedged += budget.try_spend()
    assert 95 <= hedged <= 105


@pytest.mark.parametrize(
    ("target", "is_one"),
    [
        ("localhost:50051", True),
        ("127.0.0.1:50051", True),
        ("[::1]:50051", True),
        ("dns:///127.0.0.1:50051", True),
        ("unix:/run/gateway.sock", True),
        ("ipv4:10.0.0.1:50051", True),
        ("ipv4:10.0.0.1:50051,10.0.0.2:50051", False),
        ("gateway.example:50051", False),
        ("dns:///gateway.example:50051", False),
    ],
)
def test_only_targets_with_several_gateways_are_hedged(target: str, is_one: bool) -> None:
    """A second attempt at the same gateway would only add to its load."""
    assert has_one_address(target) is is_one
