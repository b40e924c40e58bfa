"""How the clients reach servers: balancing, retries, deadlines, health, fork."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import marquee
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb

pytestmark = pytest.mark.alone


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A gateway of made-up answers."""
    with FakeGateway() as fake:
        yield fake


@contextmanager
def hanging(gateway: FakeGateway, method: str) -> Iterator[threading.Event]:
    """Lets a method of a gateway answer only at the end; the event is set once it was asked."""
    asked, release = threading.Event(), threading.Event()

    def hang(_: object) -> tuple[()]:
        asked.set()
        release.wait(timeout=60)
        return ()

    gateway.on(method, hang)
    try:
        yield asked
    finally:
        release.set()


def fail_first(times: int, gateway: FakeGateway, method: str) -> None:
    """Lets a method be unavailable so many times, then answer."""
    errors = iter([marquee.Unavailable("restarting")] * times)

    def behaviour(_: object) -> marquee.Unavailable | tuple[()]:
        return next(errors, ())

    gateway.on(method, behaviour)


def wait_for(condition: Callable[[], object]) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)


def reach(client: marquee.Client, *gateways: FakeGateway) -> None:
    """Calls until every gateway has been reached, then forgets those calls."""

    def reached() -> bool:
        client.status()
        return all(gateway.calls for gateway in gateways)

    wait_for(reached)
    for gateway in gateways:
        gateway.calls.clear()


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("Recommend", lambda client: client.recommend("42")),
        ("PredictRatings", lambda client: client.predict_ratings("42", ["1"])),
        ("SimilarItems", lambda client: client.similar_items("1")),
        ("SearchItems", lambda client: client.search_items("star")),
        ("GetItem", lambda client: client.get_item("1")),
        ("GetStatus", lambda client: client.status()),
    ],
)
async def test_an_unavailable_server_is_asked_again(
    gateway: FakeGateway, method: str, call: Callable[[Any], Any]
) -> None:
    """Every unary call gets its answer at the third attempt, and the caller sees no error."""
    for client in (
        marquee.Client(gateway.address, timeout=10),
        marquee.AsyncClient(gateway.address, timeout=10),
    ):
        gateway.calls.clear()
        fail_first(2, gateway, method)
        if isinstance(client, marquee.AsyncClient):
            async with client:
                await call(client)
        else:
            with client:
                call(client)
        assert [made.method for made in gateway.calls] == [method] * 3


@pytest.mark.parametrize(
    "error",
    [
        marquee.InvalidArgument("no"),
        marquee.NotFound("no"),
        marquee.Internal("no"),
        marquee.Overloaded("no"),
        marquee.FailedPrecondition("no"),
    ],
)
def test_other_errors_are_not_retried(gateway: FakeGateway, error: marquee.MarqueeError) -> None:
    """Asking again would not help, or would make an overload worse."""
    gateway.on("Recommend", error)
    with marquee.Client(gateway.address, timeout=10) as client, pytest.raises(type(error)):
        client.recommend("42")
    assert len(gateway.calls) == 1


def test_a_batch_is_not_retried(gateway: FakeGateway) -> None:
    """A stream may have been read already; the caller decides."""
    gateway.on("BatchRecommend", marquee.Unavailable("restarting"))
    with marquee.Client(gateway.address, timeout=10) as client, pytest.raises(marquee.Unavailable):
        list(client.batch_recommend(["42"]))
    assert len(gateway.calls) == 1


def test_retries_have_a_budget(gateway: FakeGateway) -> None:
    """In an outage calls are soon made once each, so that retries do not make it worse."""
    gateway.on("GetItem", marquee.Unavailable("down"))
    with marquee.Client(gateway.address, timeout=5) as client:
        for _ in range(100):
            with pytest.raises(marquee.Unavailable):
                client.get_item("1")
    # Fifty failed attempts use the budget up: about 13 calls of four attempts each.
    assert 130 <= len(gateway.calls) <= 150


async def test_every_call_has_a_deadline(gateway: FakeGateway) -> None:
    """A second by default; a client's and a call's own come before it; a minute for a batch."""
    with marquee.Client(gateway.address) as client:
        client.status()
        client.status(timeout=20)
        list(client.batch_recommend(["1"]))
        list(client.batch_recommend(["1"], timeout=7))
    with marquee.Client(gateway.address, timeout=10, batch_timeout=30) as client:
        client.status()
        list(client.batch_recommend(["1"]))
    async with marquee.AsyncClient(gateway.address) as async_client:
        await async_client.status()
        await async_client.status(timeout=20)
    deadlines = [call.time_remaining for call in gateway.calls]
    assert deadlines == pytest.approx([1, 20, 60, 7, 10, 30, 1, 20], abs=0.5)


async def test_a_deadline_is_kept(gateway: FakeGateway) -> None:
    """A server that does not answer costs no more than the deadline."""
    with hanging(gateway, "GetStatus"):
        start = time.monotonic()
        with (
            marquee.Client(gateway.address, timeout=0.3) as client,
            pytest.raises(marquee.DeadlineExceeded),
        ):
            client.status()
        async with marquee.AsyncClient(gateway.address) as async_client:
            with pytest.raises(marquee.DeadlineExceeded):
                await async_client.status(timeout=0.3)
        assert 0.6 <= time.monotonic() - start < 3


def test_the_deadline_covers_retries(gateway: FakeGateway) -> None:
    """Attempts share the call's deadline; they do not each get their own."""
    with hanging(gateway, "GetStatus"), marquee.Client(gateway.address, timeout=2) as client:
        hang = gateway.behaviours["GetStatus"]
        assert callable(hang)

        def fail_late(request: pb.GetStatusRequest) -> marquee.Unavailable:
            time.sleep(1)
            gateway.on("GetStatus", hang)
            return marquee.Unavailable("restarting")

        gateway.on("GetStatus", fail_late)
        start = time.monotonic()
        with pytest.raises(marquee.DeadlineExceeded):
            client.status()
        assert time.monotonic() - start < 2.8
    assert len(gateway.calls) == 2
    assert gateway.calls[1].time_remaining < 1.1


def test_calls_go_round_all_addresses() -> None:
    """Two servers behind one name get the same share of calls."""
    with FakeGateway() as one, FakeGateway() as two:
        target = f"ipv4:{one.address},{two.address}"
        with marquee.Client(target) as client:
            reach(client, one, two)
            for _ in range(50):
                client.status()
        assert (len(one.calls), len(two.calls)) == (25, 25)


def test_a_server_that_is_not_serving_is_passed_over() -> None:
    """Calls leave a server that drains, and come back to it, without one failing."""
    with (
        FakeGateway() as one,
        FakeGateway() as two,
        marquee.Client(f"ipv4:{one.address},{two.address}", timeout=10) as client,
    ):
        reach(client, one, two)
        one.serving = False
        wait_for(lambda: quiet(one, client))
        one.serving = True
        wait_for(lambda: not quiet(one, client))


def quiet(gateway: FakeGateway, client: marquee.Client) -> bool:
    """Whether none of ten calls reaches a gateway."""
    gateway.calls.clear()
    for _ in range(10):
        client.status()
    return not gateway.calls


def test_without_health_check_a_server_that_is_not_serving_is_asked(
    gateway: FakeGateway,
) -> None:
    """`health_check=False` reaches a gateway that waits for its first release."""
    gateway.serving = False
    with marquee.Client(gateway.address, timeout=10) as client, pytest.raises(marquee.Unavailable):
        client.status()
    with marquee.Client(gateway.address, health_check=False) as client:
        client.status()
    assert len(gateway.calls) == 1


def test_waiting_for_a_server_is_an_option() -> None:
    """With `wait_for_ready` a call waits for its server; without it fails at once."""
    with FakeGateway() as gateway:
        address = gateway.address
    with marquee.Client(address, timeout=20, wait_for_ready=True) as client:
        outcome: list[marquee.Status] = []
        call = threading.Thread(target=lambda: outcome.append(client.status()))
        call.start()
        with marquee.Client(address) as hasty, pytest.raises(marquee.Unavailable):
            hasty.status()
        with FakeGateway(address):
            call.join(timeout=20)
        assert len(outcome) == 1


def test_the_client_says_who_it_is(gateway: FakeGateway) -> None:
    """The user agent has our name and version; nothing asks for compression."""
    with marquee.Client(gateway.address, timeout=10) as client:
        client.recommend("42")
    metadata = gateway.calls[0].metadata
    assert metadata["user-agent"].startswith(f"marquee-python/{marquee.__version__} ")
    assert "grpc-encoding" not in metadata


def test_channel_options_of_the_caller_win(gateway: FakeGateway) -> None:
    """The way out of our defaults is a plain gRPC channel argument."""
    gateway.on("GetStatus", marquee.Unavailable("restarting"))
    options = [("grpc.service_config", "{}")]
    with (
        marquee.Client(gateway.address, channel_options=options) as client,
        pytest.raises(marquee.Unavailable),
    ):
        client.status()
    assert len(gateway.calls) == 1


@pytest.mark.parametrize("target", ["", "http://localhost:1", "https://localhost:1"])
def test_a_target_is_no_url(target: str) -> None:
    """gRPC would look up a host called `https`; say so instead."""
    with pytest.raises(ValueError, match="host:port"):
        marquee.Client(target)


def test_leaving_a_batch_ends_its_call(gateway: FakeGateway) -> None:
    """A loop left early cancels the call, so the server stops making answers."""
    ended = threading.Event()

    def forever(_: object) -> Iterator[pb.BatchRecommendResponse]:
        answer = pb.BatchRecommendResponse.SubjectAnswer(
            recommendations=pb.BatchRecommendResponse.Recommendations()
        )
        try:
            while True:
                yield pb.BatchRecommendResponse(answers=[answer])
        finally:
            ended.set()

    gateway.on("BatchRecommend", forever)
    with marquee.Client(gateway.address, timeout=10) as client:
        for _ in client.batch_recommend(["42"]):
            break
        assert ended.wait(timeout=10)


def test_threads_share_a_client(gateway: FakeGateway) -> None:
    """Threads that begin at once end up on one connection, and none fails."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)
    with marquee.Client(gateway.address, timeout=10) as client:

        def work() -> None:
            try:
                barrier.wait()
                for _ in range(20):
                    client.status()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(client._connections) == 1


SERVER = """
import signal
import marquee.testing
from marquee.v1 import recommender_service_pb2 as pb

gateway = marquee.testing.FakeGateway()
gateway.on("GetStatus", pb.GetStatusResponse(server_version=gateway.address))
print(gateway.address, flush=True)
signal.pause()
"""


@contextmanager
def server_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway in a process of its own, and its address, which its status tells."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_frozen_server_is_noticed() -> None:
    """One of two servers stops without a word: one call at most waits for it, and none fails."""
    with (
        server_process() as (frozen, first),
        server_process() as (_, second),
        marquee.Client(f"ipv4:{first},{second}", timeout=10) as client,
    ):
        seen: set[str] = set()

        def both_reached() -> bool:
            seen.add(client.status().server_version)
            return seen == {first, second}

        wait_for(both_reached)
        # A quiet spell, so that no ping of gRPC's own is under way and keepalive has to find out.
        time.sleep(1.5)
        frozen.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, frozen.pid, os.WSTOPPED)
        start = time.monotonic()
        versions = [client.status().server_version for _ in range(10)]
        assert versions == [second] * 10
        assert time.monotonic() - start < 5


FORK = """
import os, signal, sys
import marquee

client = marquee.Client(sys.argv[1], timeout=10)
if sys.argv[2] == "used":
    client.status()
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        for _ in range(3):
            client.status()
        client.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    client.status()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("before", ["used", "unused"])
def test_a_client_works_on_both_sides_of_a_fork(gateway: FakeGateway, before: str) -> None:
    """Parent and children call in turn, whether or not the client was at work before the fork."""
    result = subprocess.run(
        [sys.executable, "-c", FORK, gateway.address, before],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout == "done\n", result.stderr


ASYNC_FORK = """
import asyncio, os, signal, sys
import marquee

client = marquee.AsyncClient(sys.argv[1], timeout=10)


async def call():
    for _ in range(3):
        await client.status()


def run_in_child():
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            asyncio.run(call())
        except RuntimeError as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


assert run_in_child() == 0
asyncio.run(call())
assert run_in_child() != 0
asyncio.run(call())
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_an_async_client_works_when_forked_before_use(gateway: FakeGateway) -> None:
    """Forked before its first call it works on both sides; later the child is told, not hung."""
    result = subprocess.run(
        [sys.executable, "-c", ASYNC_FORK, gateway.address],
        capture_output=True,
        text=True,
        timeout=120,
    )
    expected = "gRPC's asyncio was in use before this process forked off\ndone\n"
    assert result.stdout == expected, result.stderr


CALL = """
import sys
import marquee

with marquee.Client(sys.argv[1], timeout=60) as client:
    {call}
"""


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("GetStatus", "client.status()"),
        ("BatchRecommend", "list(client.batch_recommend(['1']))"),
    ],
)
def test_an_interrupt_ends_a_call(gateway: FakeGateway, method: str, call: str) -> None:
    """Ctrl-C during a call raises KeyboardInterrupt there and then."""
    with hanging(gateway, method) as asked:
        process = subprocess.Popen(
            [sys.executable, "-c", CALL.format(call=call), gateway.address],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asked.wait(timeout=30)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert re.search(r"^KeyboardInterrupt$", error, re.MULTILINE)
