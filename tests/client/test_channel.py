"""Connections of the clients: load balancing, retries, deadlines, health checks and forks."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import marquee
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb
from toy.waiting import WAIT_S, wait_until

pytestmark = pytest.mark.alone

# A generous deadline in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 60.0


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway."""
    with FakeGateway() as fake:
        yield fake


@contextmanager
def hanging(gateway: FakeGateway, method: str) -> Iterator[threading.Event]:
    """Make a method hang until the context ends; the event is set by its first call."""
    called, release = threading.Event(), threading.Event()

    def hang(_: object) -> tuple[()]:
        called.set()
        release.wait(timeout=2 * WAIT_S)
        return ()

    gateway.on(method, hang)
    try:
        yield called
    finally:
        release.set()


def fail_first(
    times: int,
    gateway: FakeGateway,
    method: str,
    error: marquee.MarqueeError = marquee.Unavailable("restarting"),  # noqa: B008
) -> None:
    """Make a method fail a number of times, and then answer."""
    errors = iter([error] * times)

    def behaviour(_: object) -> marquee.MarqueeError | tuple[()]:
        return next(errors, ())

    gateway.on(method, behaviour)


def reach(client: marquee.Client, *gateways: FakeGateway) -> None:
    """Make calls until every gateway has received one, then clear the recorded calls."""

    def reached() -> bool:
        client.status()
        return all(gateway.calls for gateway in gateways)

    wait_until(reached)
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
async def test_unavailable_calls_are_retried(
    gateway: FakeGateway, method: str, call: Callable[[Any], Any]
) -> None:
    """Every unary call succeeds on the third attempt, and the caller sees no error."""
    for client in (
        marquee.Client(gateway.address, timeout=DEADLINE_S),
        marquee.AsyncClient(gateway.address, timeout=DEADLINE_S),
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


async def test_calls_that_a_server_cancels_are_retried(gateway: FakeGateway) -> None:
    """Servers and proxies end calls with CANCELLED when they shut down or reach a limit."""
    fail_first(2, gateway, "Recommend", marquee.Cancelled("CANCELLED"))
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        client.recommend("42")
    assert len(gateway.calls) == 3
    fail_first(2, gateway, "Recommend", marquee.Cancelled("CANCELLED"))
    async with marquee.AsyncClient(gateway.address, timeout=DEADLINE_S) as client:
        await client.recommend("42")
    assert len(gateway.calls) == 6


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
    """Errors that a retry would not help with, or would make worse, are raised immediately."""
    gateway.on("Recommend", error)
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client, pytest.raises(type(error)):
        client.recommend("42")
    assert len(gateway.calls) == 1


def test_a_batch_without_any_answer_is_not_retried(gateway: FakeGateway) -> None:
    """Only a batch that has begun is resumed, because a batch is expensive for the servers."""
    gateway.on("BatchRecommend", marquee.Unavailable("restarting"))
    with marquee.Client(gateway.address) as client, pytest.raises(marquee.Unavailable):
        list(client.batch_recommend(["42"]))
    assert len(gateway.calls) == 1


def test_retries_have_a_budget(gateway: FakeGateway) -> None:
    """During an outage, calls soon stop being retried, so retries do not make it worse."""
    gateway.on("GetItem", marquee.Unavailable("down"))
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        for _ in range(100):
            with pytest.raises(marquee.Unavailable):
                client.get_item("1")
    # Fifty failed attempts use up the budget: about 13 calls with four attempts each.
    assert 130 <= len(gateway.calls) <= 150


async def assert_deadline(gateway: FakeGateway, seconds: float, call: Callable[[], Any]) -> None:
    """Make a call and check its deadline, however long the call takes to arrive."""
    count, start = len(gateway.calls), time.monotonic()
    # On a slow machine, a short deadline may expire before the call arrives.
    while len(gateway.calls) == count:
        with suppress(marquee.DeadlineExceeded):
            result = call()
            if inspect.isawaitable(result):
                await result
    took = time.monotonic() - start
    assert seconds - took - 0.5 <= gateway.calls[-1].time_remaining <= seconds + 0.5


async def test_every_call_has_a_deadline(gateway: FakeGateway) -> None:
    """The default is one second, or a minute for a batch; the client or a call can change it."""
    with marquee.Client(gateway.address) as client:
        client.status(timeout=DEADLINE_S)
        await assert_deadline(gateway, 1, client.status)
        await assert_deadline(gateway, 20, lambda: client.status(timeout=20))
        await assert_deadline(gateway, 60, lambda: list(client.batch_recommend(["1"])))
        await assert_deadline(gateway, 7, lambda: list(client.batch_recommend(["1"], timeout=7)))
    with marquee.Client(gateway.address, timeout=10, batch_timeout=30) as client:
        await assert_deadline(gateway, 10, client.status)
        await assert_deadline(gateway, 30, lambda: list(client.batch_recommend(["1"])))
    async with marquee.AsyncClient(gateway.address) as async_client:
        await async_client.status(timeout=DEADLINE_S)
        await assert_deadline(gateway, 1, async_client.status)
        await assert_deadline(gateway, 20, lambda: async_client.status(timeout=20))


async def test_a_call_ends_at_its_deadline(gateway: FakeGateway) -> None:
    """A call to a server that does not answer ends at its deadline."""
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
        # The server itself would hang for minutes.
        assert 0.6 <= time.monotonic() - start < 30


def test_the_deadline_covers_retries(gateway: FakeGateway) -> None:
    """All attempts share the deadline of the call."""
    # A busy server may answer a keepalive ping late, which would add an attempt.
    slow_pings = [("grpc.keepalive_time_ms", 60_000), ("grpc.http2.ping_timeout_ms", 60_000)]
    with marquee.Client(gateway.address, channel_options=slow_pings) as client:
        client.get_item("1", timeout=DEADLINE_S)
        gateway.calls.clear()

        def fail_late(_: pb.GetStatusRequest) -> marquee.Unavailable:
            time.sleep(1)
            gateway.on("GetStatus", pb.GetStatusResponse())
            return marquee.Unavailable("restarting")

        gateway.on("GetStatus", fail_late)
        # gRPC sends longer deadlines with less precision.
        client.status(timeout=20)
    assert len(gateway.calls) == 2
    # A separate deadline of the second attempt would leave it nearly 20 s.
    assert gateway.calls[1].time_remaining < 19.2


def test_calls_are_balanced_over_all_addresses() -> None:
    """Two servers behind one target receive the same number of calls."""
    with FakeGateway() as one, FakeGateway() as two:
        target = f"ipv4:{one.address},{two.address}"
        with marquee.Client(target, timeout=DEADLINE_S) as client:
            reach(client, one, two)
            for _ in range(50):
                client.status()
        assert (len(one.calls), len(two.calls)) == (25, 25)


def test_a_server_that_is_not_serving_gets_no_calls() -> None:
    """Calls avoid a server while it drains and return to it afterwards, and none fails."""
    with (
        FakeGateway() as one,
        FakeGateway() as two,
        marquee.Client(f"ipv4:{one.address},{two.address}", timeout=DEADLINE_S) as client,
    ):
        reach(client, one, two)
        one.serving = False
        wait_until(lambda: is_avoided(one, client))
        one.serving = True
        wait_until(lambda: not is_avoided(one, client))


def is_avoided(gateway: FakeGateway, client: marquee.Client) -> bool:
    """Make ten calls, and return whether none of them reached the gateway."""
    gateway.calls.clear()
    for _ in range(10):
        client.status()
    return not gateway.calls


def test_the_health_check_can_be_disabled(
    gateway: FakeGateway,
) -> None:
    """`health_check=False` allows calls to a gateway that has no release yet."""
    gateway.serving = False
    with (
        marquee.Client(gateway.address, timeout=DEADLINE_S) as client,
        pytest.raises(marquee.Unavailable),
    ):
        client.status()
    with marquee.Client(gateway.address, timeout=DEADLINE_S, health_check=False) as client:
        client.status()
    assert len(gateway.calls) == 1


def test_wait_for_ready_waits_for_the_server() -> None:
    """With `wait_for_ready`, a call waits for its server; without it, it fails immediately."""
    with FakeGateway() as gateway:
        address = gateway.address
    with marquee.Client(address, timeout=DEADLINE_S, wait_for_ready=True) as client:
        results: list[marquee.Status] = []
        call = threading.Thread(target=lambda: results.append(client.status()))
        call.start()
        with (
            marquee.Client(address, timeout=DEADLINE_S) as impatient,
            pytest.raises(marquee.Unavailable),
        ):
            impatient.status()
        with FakeGateway(address):
            call.join(timeout=DEADLINE_S)
        assert len(results) == 1


def test_the_client_sends_its_user_agent(gateway: FakeGateway) -> None:
    """The user agent has the client's name and version; no compression is requested."""
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        client.recommend("42")
    metadata = gateway.calls[0].metadata
    assert metadata["user-agent"].startswith(f"marquee-python/{marquee.__version__} ")
    assert "grpc-encoding" not in metadata


def test_channel_options_override_the_defaults(gateway: FakeGateway) -> None:
    """Every default of the client can be overridden with a gRPC channel argument."""
    gateway.on("GetStatus", marquee.Unavailable("restarting"))
    options = [("grpc.service_config", "{}")]
    with (
        marquee.Client(gateway.address, timeout=DEADLINE_S, channel_options=options) as client,
        pytest.raises(marquee.Unavailable),
    ):
        client.status()
    assert len(gateway.calls) == 1


@pytest.mark.parametrize("target", ["", "http://localhost:1", "https://localhost:1"])
def test_a_url_is_refused_as_a_target(target: str) -> None:
    """A URL is refused immediately, since gRPC would try to resolve a host named `https`."""
    with pytest.raises(ValueError, match="host:port"):
        marquee.Client(target)


def test_leaving_a_batch_ends_its_call(gateway: FakeGateway) -> None:
    """Leaving the loop early cancels the call, so that the server stops working on it."""
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
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        for _ in client.batch_recommend(["42"]):
            break
        assert ended.wait(timeout=DEADLINE_S / 2)


def test_threads_share_a_client(gateway: FakeGateway) -> None:
    """Threads that make their first calls concurrently share one connection, and none fails."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:

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
    """Run a fake gateway as a separate process, whose status has its address as the version."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_frozen_server_is_noticed() -> None:
    """If one of two servers freezes, calls soon move to the other, and none fails."""
    with (
        server_process() as (frozen, first),
        server_process() as (_, second),
        marquee.Client(f"ipv4:{first},{second}", timeout=DEADLINE_S) as client,
    ):
        seen: set[str] = set()

        def both_reached() -> bool:
            seen.add(client.status().server_version)
            return seen == {first, second}

        wait_until(both_reached)
        # gRPC sends no pings while there is no traffic, so the client's keepalive must notice.
        time.sleep(1.5)
        frozen.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, frozen.pid, os.WSTOPPED)
        start = time.monotonic()
        versions = [client.status().server_version for _ in range(10)]
        assert versions == [second] * 10
        # Otherwise, the first call to the frozen server would wait for its deadline.
        assert time.monotonic() - start < DEADLINE_S / 2


FORK = """
import os, signal, sys
import marquee

client = marquee.Client(sys.argv[1], timeout=60)
if sys.argv[2] == "used":
    client.status()
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(90)
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
    """Parent and children can make calls whether or not the client was used before the fork."""
    result = subprocess.run(
        [sys.executable, "-c", FORK, gateway.address, before],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
    )
    assert result.stdout == "done\n", result.stderr


BUSY_FORK = """
import os, signal, sys, threading
import marquee

client, stop = marquee.Client(sys.argv[1], timeout=60), threading.Event()
calls = [0] * 4


def spin(place):
    while not stop.is_set():
        client.status()
        calls[place] += 1


threads = [threading.Thread(target=spin, args=(place,)) for place in range(len(calls))]
for thread in threads:
    thread.start()
for _ in range(10):
    before = list(calls)
    while any(now == then for now, then in zip(calls, before)):
        pass  # Every thread continues to make calls after the last fork.
    child = os.fork()
    if child == 0:
        signal.alarm(90)
        client.status()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        print("a child ended with status", status, flush=True)
        break
stop.set()
for thread in threads:
    thread.join()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_during_calls_is_safe(gateway: FakeGateway) -> None:
    """A fork while other threads make calls neither crashes the child nor ends the calls."""
    result = subprocess.run(
        [sys.executable, "-c", BUSY_FORK, gateway.address],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
    )
    assert result.stdout == "done\n", result.stderr


ASYNC_FORK = """
import asyncio, os, signal, sys
import marquee

client = marquee.AsyncClient(sys.argv[1], timeout=60)


async def call():
    for _ in range(3):
        await client.status()


def run_in_child():
    child = os.fork()
    if child == 0:
        signal.alarm(90)
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
def test_an_async_client_may_be_forked_before_its_first_call(gateway: FakeGateway) -> None:
    """After a fork before the first call the child can make calls; after a later one they fail."""
    result = subprocess.run(
        [sys.executable, "-c", ASYNC_FORK, gateway.address],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
    )
    expected = "an AsyncClient cannot be used in a process forked after a call\ndone\n"
    assert result.stdout == expected, result.stderr


CALL = """
import sys
import marquee

with marquee.Client(sys.argv[1], timeout=240, batch_timeout=240) as client:
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
    """Ctrl-C during a call raises `KeyboardInterrupt` immediately."""
    with hanging(gateway, method) as called:
        process = subprocess.Popen(
            [sys.executable, "-c", CALL.format(call=call), gateway.address],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert called.wait(timeout=WAIT_S)
        process.send_signal(signal.SIGINT)
        # Well before the server answers or the deadline of the call expires.
        _, error = process.communicate(timeout=WAIT_S / 2)
    assert re.search(r"^KeyboardInterrupt$", error, re.MULTILINE)
