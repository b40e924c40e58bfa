"""The overload proxy refuses excess calls as the gateway does, and passes on everything else."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.rpc import error_details_pb2, status_pb2

import marquee
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import (
    RecommenderServiceServicer,
    RecommenderServiceStub,
    add_RecommenderServiceServicer_to_server,
)
from marquee_services.errors import Overloaded
from marquee_services.server.status import error_trailers
from proxies import Limits, OverloadProxy, overload_proxy, program
from toy.waiting import WAIT_S, wait_until

pytestmark = pytest.mark.skipif(program("haproxy") is None, reason="needs HAProxy")

LIMITS = Limits(computed=2, stored=3, queued=1)
USER = types_pb2.Subject(user_id="u1")
VISITOR = types_pb2.Subject(ratings=[types_pb2.Rating(item_id="i1", stars=4.0)])
RATED = types_pb2.Subject(user_id="u1", ratings=VISITOR.ratings)
LIKED = types_pb2.Subject(user_id="u1", liked_item_ids=["i1"])


class HoldingGateway(RecommenderServiceServicer):
    """A server whose calls to Recommend wait until they are let go; it answers everything else."""

    def __init__(self) -> None:
        """Holds calls at first."""
        self.held = 0
        self.left = 0
        self.let_go = threading.Event()
        self._lock = threading.Lock()

    def Recommend(self, request: pb.RecommendRequest, context: Any) -> pb.RecommendResponse:  # noqa: N802
        """Answer once `let_go` is set."""
        gone = threading.Event()
        context.add_callback(gone.set)
        with self._lock:
            self.held += 1
        while not self.let_go.wait(0.01) and not gone.is_set():
            pass
        with self._lock:
            self.held -= 1
            self.left += gone.is_set()
        return pb.RecommendResponse(recommendation_id=request.subject.user_id)

    def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:  # noqa: N802
        """Answer at once."""
        return pb.GetStatusResponse()

    def BatchRecommend(self, request: Any, context: Any) -> Iterator[pb.BatchRecommendResponse]:  # noqa: N802
        """Answer at once."""
        yield pb.BatchRecommendResponse()


@pytest.fixture
def gateway() -> Iterator[tuple[HoldingGateway, grpc.Server, int]]:
    """A server that holds calls, and its port."""
    # Its other methods are not called.
    servicer = HoldingGateway()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(32))
    add_RecommenderServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, server, port
    servicer.let_go.set()
    server.stop(None).wait()


@pytest.fixture
def proxy(
    gateway: tuple[HoldingGateway, grpc.Server, int], tmp_path: Path
) -> Iterator[OverloadProxy]:
    """The proxy in front of that server."""
    address = f"127.0.0.1:{gateway[2]}"
    with overload_proxy(address, tmp_path, LIMITS, queue_timeout=f"{WAIT_S:.0f}s") as running:
        yield running


class Caller:
    """Starts calls that wait for their answers."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub = RecommenderServiceStub(self.channel)
        # Calls are cancelled when they are garbage.
        self._calls: list[Any] = []

    def start(self, subject: types_pb2.Subject) -> Any:
        """Start a call to Recommend."""
        call = self.stub.Recommend.future(
            pb.RecommendRequest(subject=subject), timeout=WAIT_S, metadata=(("x-request-id", "r1"),)
        )
        self._calls.append(call)
        return call


@pytest.fixture
def caller(proxy: OverloadProxy) -> Iterator[Caller]:
    """A caller of the proxy."""
    made = Caller(proxy.address)
    yield made
    made.channel.close()


def refused(calls: list[Any]) -> int:
    """Return the number of calls that have been refused."""
    return sum(call.done() and call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED for call in calls)


def detail(status: bytes, kind: Any) -> Any:
    """Return the detail of a kind from a serialised google.rpc.Status."""
    found = kind()
    assert any(item.Unpack(found) for item in status_pb2.Status.FromString(status).details)
    return found


def fill(caller: Caller, gateway: HoldingGateway, subject: types_pb2.Subject) -> list[Any]:
    """Start as many calls as are in progress or queued, and one more, which is refused."""
    limit = LIMITS.stored if subject is USER else LIMITS.computed
    before = gateway.held
    calls = [caller.start(subject) for _ in range(limit + LIMITS.queued + 1)]
    wait_until(lambda: gateway.held == before + limit and refused(calls) == 1)
    return calls


def test_calls_beyond_the_limit_are_refused_as_the_gateway_refuses(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int]
) -> None:
    """The status, the reason and the delay are the gateway's; calls within the limit succeed."""
    calls = fill(caller, gateway[0], VISITOR)
    (failed,) = [call for call in calls if call.done()]
    ours: dict[str, Any] = dict(failed.trailing_metadata())
    theirs: dict[str, Any] = dict(error_trailers(Overloaded("2"), "r1"))
    key = "grpc-status-details-bin"
    assert failed.code() is Overloaded.code
    for kind, fields in (
        (error_details_pb2.ErrorInfo, ("reason", "domain")),
        (error_details_pb2.RetryInfo, ("retry_delay",)),
    ):
        for field in fields:
            assert getattr(detail(ours[key], kind), field) == getattr(
                detail(theirs[key], kind), field
            )
    assert status_pb2.Status.FromString(ours[key]).message == failed.details()
    assert ours["x-request-id"] == "r1"
    gateway[0].let_go.set()
    assert sum(call.exception() is None for call in calls) == LIMITS.computed + LIMITS.queued


def test_the_client_names_the_refusal(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int], proxy: OverloadProxy
) -> None:
    """The client library raises Overloaded with the reason and the delay of the RetryInfo."""
    fill(caller, gateway[0], VISITOR)
    with (
        marquee.Client(proxy.address, timeout=1.0) as client,
        pytest.raises(marquee.Overloaded) as caught,
    ):
        client.recommend(ratings={"i1": 4})
    assert (caught.value.reason, caught.value.retry_after) == ("OVERLOADED", 0.1)


def test_stored_and_computed_answers_have_separate_limits(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int]
) -> None:
    """Visitors do not keep users out, and users with ratings or likes count as visitors."""
    fill(caller, gateway[0], VISITOR)
    for subject in (RATED, LIKED):
        assert caller.start(subject).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    fill(caller, gateway[0], USER)


def test_nothing_but_recommend_is_limited(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int]
) -> None:
    """GetStatus and batches are answered while all calls to Recommend are refused."""
    fill(caller, gateway[0], VISITOR)
    for _ in range(5):
        caller.stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert list(caller.stub.BatchRecommend(pb.BatchRecommendRequest(), timeout=WAIT_S))


def test_callers_that_leave_make_room(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int]
) -> None:
    """A cancelled call ends in the gateway too, and the next one in the queue takes its place."""
    calls = [call for call in fill(caller, gateway[0], VISITOR) if not call.done()]
    for call in calls:
        call.cancel()
    wait_until(lambda: gateway[0].held == 0)
    assert gateway[0].left >= LIMITS.computed
    fill(caller, gateway[0], VISITOR)


def test_a_gateway_that_is_gone_is_unavailable(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int]
) -> None:
    """The caller gets UNAVAILABLE, upon which it calls another gateway."""
    gateway[1].stop(None).wait()
    call = caller.start(VISITOR)
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert call.details() == "the gateway does not answer"


def test_refusals_are_counted(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int], proxy: OverloadProxy
) -> None:
    """Prometheus can read how many calls of each kind were refused."""
    fill(caller, gateway[0], VISITOR)
    fill(caller, gateway[0], USER)
    lines = proxy.metrics()
    for kind in ("computed", "stored"):
        assert f'haproxy_backend_requests_denied_total{{proxy="{kind}"}} 1' in lines


def test_a_reload_loses_no_call(
    caller: Caller, gateway: tuple[HoldingGateway, grpc.Server, int], proxy: OverloadProxy
) -> None:
    """Calls in progress are answered, and callers reconnect to the new process by themselves."""
    held = [caller.start(VISITOR) for _ in range(LIMITS.computed)]
    wait_until(lambda: gateway[0].held == LIMITS.computed)
    proxy.reload()
    counted = f'haproxy_backend_http_requests_total{{proxy="computed"}} {LIMITS.computed}'

    def has_new_process() -> bool:
        return counted not in proxy.metrics()

    wait_until(has_new_process)
    gateway[0].let_go.set()
    assert [call.result().recommendation_id for call in held] == ["", ""]
    for _ in range(50):
        assert caller.start(USER).result().recommendation_id == "u1"


def certificates_of(authority: Any, folder: Path) -> None:
    """Issue a certificate for the gateway and write it as Kubernetes does."""
    certificate, key = authority.issue("marquee-gateway")
    folder.mkdir(exist_ok=True)
    for source, name in (
        (key, "tls.key"),
        (certificate, "tls.crt"),
        (authority.certificate, "ca.crt"),
    ):
        shutil.copy(source, folder / f"{name}.new")
        (folder / f"{name}.new").rename(folder / name)


def serial_of(address: str, tls: Path) -> int:
    """Return the serial number of the certificate at an address."""
    context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="marquee-gateway") as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def test_mutual_tls_with_renewed_certificates(
    background_services: Any, background_loop: Any, authority: Any, tmp_path: Path
) -> None:
    """Only callers with a certificate are served, and a renewed one is used without a restart."""
    tls = tmp_path / "tls"
    certificates_of(authority, tls)
    with ExitStack() as stack:
        behind = background_loop.run(
            background_services.start_gateway(
                tls_certificate=str(tls / "tls.crt"),
                tls_key=str(tls / "tls.key"),
                tls_client_ca=str(tls / "ca.crt"),
            )
        )
        stack.callback(lambda: background_loop.run(behind.stop(0.5)))
        proxy = stack.enter_context(
            overload_proxy(f"127.0.0.1:{behind.bound.port}", tmp_path, LIMITS, tls)
        )
        cert, key = authority.issue("caller")
        name = "marquee-gateway"
        known = marquee.TLS(ca=authority.certificate, cert=cert, key=key, server_name=name)
        with marquee.Client(proxy.address, tls=known, timeout=WAIT_S) as client:
            assert len(client.recommend("u7")) == 20
            before = serial_of(proxy.address, tls)
            certificates_of(authority, tls)
            wait_until(lambda: serial_of(proxy.address, tls) != before)
            assert len(client.recommend("u7")) == 20
        unknown = marquee.TLS(ca=authority.certificate, server_name=name)
        with (
            marquee.Client(proxy.address, tls=unknown, timeout=2.0) as client,
            pytest.raises(marquee.Unavailable),
        ):
            client.recommend("u7")


def test_a_gateway_that_drains_hands_its_callers_over(
    background_services: Any, background_loop: Any, tmp_path: Path
) -> None:
    """Clients of two gateways behind proxies notice nothing when one of the gateways stops."""
    with ExitStack() as stack:
        gateways, addresses = [], []
        for number in range(2):
            gateway = background_loop.run(background_services.start_gateway())
            background_loop.run(background_services.until_full(gateway))
            gateways.append(gateway)
            folder = tmp_path / str(number)
            folder.mkdir()
            proxy = stack.enter_context(
                overload_proxy(f"127.0.0.1:{gateway.bound.port}", folder, Limits(64, 64, 64))
            )
            addresses.append(proxy.address.rpartition(":")[2])
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in addresses)
        client = stack.enter_context(marquee.Client(target, timeout=WAIT_S))
        pool = stack.enter_context(ThreadPoolExecutor(4))
        stopped = threading.Event()

        def call() -> int:
            done = 0
            while not stopped.is_set():
                assert len(client.recommend("u7")) == 20
                done += 1
            return done

        callers: list[Future[int]] = [pool.submit(call) for _ in range(4)]
        try:
            background_loop.run(gateways[0].stop(5.0))
            for _ in range(20):
                assert len(client.recommend("u8")) == 20
        finally:
            stopped.set()
        assert all(caller.result() for caller in callers)
        background_loop.run(gateways[1].stop(0.5))
