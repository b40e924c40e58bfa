"""The exceptions that failed calls raise."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import marquee
from marquee import _rpc_errors
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb

# A generous deadline in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 60.0

CLASSES = {
    "CANCELLED": marquee.Cancelled,
    "UNKNOWN": marquee.Internal,
    "INVALID_ARGUMENT": marquee.InvalidArgument,
    "DEADLINE_EXCEEDED": marquee.DeadlineExceeded,
    "NOT_FOUND": marquee.NotFound,
    "ALREADY_EXISTS": marquee.Internal,
    "PERMISSION_DENIED": marquee.PermissionDenied,
    "RESOURCE_EXHAUSTED": marquee.Overloaded,
    "FAILED_PRECONDITION": marquee.FailedPrecondition,
    "ABORTED": marquee.Internal,
    "OUT_OF_RANGE": marquee.Internal,
    "UNIMPLEMENTED": marquee.Unimplemented,
    "INTERNAL": marquee.Internal,
    "UNAVAILABLE": marquee.Unavailable,
    "DATA_LOSS": marquee.Internal,
    "UNAUTHENTICATED": marquee.Unauthenticated,
}


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway."""
    with FakeGateway() as fake:
        yield fake


def test_the_table_covers_every_status() -> None:
    """Every gRPC status code has an expected class, so a new code is noticed."""
    assert set(CLASSES) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize(("code", "expected"), CLASSES.items())
async def test_each_status_has_its_class(
    gateway: FakeGateway, code: str, expected: type[marquee.MarqueeError]
) -> None:
    """Both clients raise the same class, with code, message and the gRPC error as the cause."""
    gateway.on("SearchItems", marquee.MarqueeError("a message", code=code))
    with (
        marquee.Client(gateway.address, timeout=DEADLINE_S) as client,
        pytest.raises(marquee.MarqueeError) as sync,
    ):
        client.search_items("x")
    async with marquee.AsyncClient(gateway.address, timeout=DEADLINE_S) as async_client:
        with pytest.raises(marquee.MarqueeError) as asynchronous:
            await async_client.search_items("x")
    for raised in (sync.value, asynchronous.value):
        assert type(raised) is expected
        assert (raised.code, raised.message, raised.reason) == (code, "a message", "")
        assert isinstance(raised.grpc_error, grpc.RpcError)
        assert raised.grpc_error.code().name == code


async def test_details_of_a_status_reach_the_caller(gateway: FakeGateway) -> None:
    """Both clients read the reason, metadata and violations from the google.rpc details."""
    sent = marquee.InvalidArgument(
        "page_size: at most 1,000",
        reason="INVALID_FIELD",
        metadata={"fields": "page_size"},
        violations=[marquee.Violation("page_size", "at most 1,000")],
    )
    gateway.on("Recommend", sent)
    gateway.on("BatchRecommend", sent)
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        with pytest.raises(marquee.InvalidArgument) as unary:
            client.recommend("42", page_size=1001)
        with pytest.raises(marquee.InvalidArgument) as stream:
            list(client.batch_recommend(["42"]))
    async with marquee.AsyncClient(gateway.address, timeout=DEADLINE_S) as async_client:
        with pytest.raises(marquee.InvalidArgument) as async_unary:
            await async_client.recommend("42", page_size=1001)
        with pytest.raises(marquee.InvalidArgument) as async_stream:
            [answer async for answer in async_client.batch_recommend(["42"])]
    for raised in (unary.value, stream.value, async_unary.value, async_stream.value):
        assert raised.reason == "INVALID_FIELD"
        assert raised.metadata == {"fields": "page_size"}
        assert raised.violations == (marquee.Violation("page_size", "at most 1,000"),)
        assert str(raised) == "INVALID_FIELD: page_size: at most 1,000"


class _ProxyError(grpc.RpcError):
    """A gRPC error as a proxy might send it."""

    def __init__(self, details: bytes) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.NOT_FOUND

    def details(self) -> str:
        return "by a proxy"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:  # type: ignore[override]
        return ((_rpc_errors.DETAILS_KEY, self._details),)


def test_details_of_another_domain_are_ignored() -> None:
    """If the details are damaged or of another domain, only code and message are used."""
    info = error_details_pb2.ErrorInfo(reason="THEIRS", domain="example.com")
    status = status_pb2.Status(code=5)
    status.details.add().Pack(info)
    for details in (status.SerializeToString(), b"\xff\xff"):
        error = _rpc_errors.from_rpc_error(_ProxyError(details))
        assert isinstance(error, marquee.NotFound)
        assert (error.reason, error.message) == ("", "by a proxy")


def test_an_address_without_a_server_is_unavailable() -> None:
    """If nothing listens at the address, the error is `Unavailable` and names the address."""
    with FakeGateway() as gateway:
        address = gateway.address
    with (
        marquee.Client(address, timeout=DEADLINE_S) as client,
        pytest.raises(marquee.Unavailable) as raised,
    ):
        client.status()
    assert raised.value.message.startswith(f"cannot connect to a gateway at {address}: ")
    assert "refused" in raised.value.message


def test_a_server_without_the_service_is_unimplemented() -> None:
    """Calling a gRPC server that is not a gateway raises `Unimplemented`."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with (
            marquee.Client(f"127.0.0.1:{port}", timeout=DEADLINE_S, health_check=False) as client,
            pytest.raises(marquee.Unimplemented),
        ):
            client.status()
    finally:
        server.stop(None).wait()


def test_errors_can_be_pickled() -> None:
    """Pickling loses no part of an error, for multiprocessing and task queues."""
    error = marquee.InvalidArgument(
        "m", reason="R", metadata={"k": "v"}, violations=[marquee.Violation("f", "d")]
    )
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is marquee.InvalidArgument
    assert vars(copy) == vars(error)


def test_an_overload_error_has_the_retry_delay(gateway: FakeGateway) -> None:
    """`Overloaded` has the delay that the server requests; other errors have none."""
    gateway.on("Recommend", marquee.Overloaded("busy", reason="OVERLOADED", retry_after=0.25))
    gateway.on("GetItem", marquee.NotFound("no such item", reason="ITEM_NOT_FOUND"))
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        with pytest.raises(marquee.Overloaded) as refused:
            client.recommend("42")
        with pytest.raises(marquee.NotFound) as missing:
            client.get_item("1")
    assert refused.value.retry_after == 0.25
    assert missing.value.retry_after is None


def test_an_error_midway_ends_a_batch(gateway: FakeGateway) -> None:
    """Answers that arrive before an error are returned before it is raised."""

    def answer(request: pb.BatchRecommendRequest) -> Iterator[pb.BatchRecommendResponse]:
        good = pb.BatchRecommendResponse.SubjectAnswer(
            recommendations=pb.BatchRecommendResponse.Recommendations()
        )
        yield pb.BatchRecommendResponse(answers=[good])
        raise marquee.Overloaded("too much", reason="OVERLOADED")

    gateway.on("BatchRecommend", answer)
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        answers = client.batch_recommend(["1", "2"])
        assert next(answers).index == 0
        with pytest.raises(marquee.Overloaded):
            next(answers)
