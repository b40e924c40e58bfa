"""Protection against callers that could lock out others: excessive, oversized or stalled calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest

import marquee
from gateway.calls import TIMEOUT_S, Subject, error_of, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.ranking.model_shedding import ModelLoad
from toy.waiting import WAIT_S

RECOMMEND = "/marquee.v1.RecommenderService/Recommend"
EXHAUSTED, INVALID = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT
# More answers than the flow-control windows of a stream hold.
MANY = 5_000


def batch_of(count: int, **fields: Any) -> pb.BatchRecommendRequest:
    """Return a batch for `count` known users, whose answers are precomputed."""
    subjects = [Subject(user_id=f"u{n % 20}") for n in range(count)]
    return pb.BatchRecommendRequest(subjects=subjects, **fields)


async def nothing(*_arguments: Any) -> None:
    """Do nothing, in place of a probe."""


async def started(services: Any, **changes: Any) -> tuple[Any, grpc.aio.Channel, Any]:
    """Start a gateway with changed settings, and return it with a channel to it and a stub."""
    gateway = await services.start_gateway(**changes)
    await services.until_full(gateway)
    # The flow-control window stays small, so that few answers fit into it.
    options = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}", options)
    return gateway, channel, RecommenderServiceStub(channel)


async def test_calls_beyond_the_limit_are_shed(services: Any) -> None:
    """Excess calls get RESOURCE_EXHAUSTED immediately, and admitted calls are answered."""
    gateway = await services.start_gateway(max_calls=2)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        calls = [stub.Recommend(request_for(f"u{n}"), timeout=TIMEOUT_S) for n in range(30)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    shed = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert shed
    assert len(shed) < len(results)
    assert {error.code() for error in shed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    await gateway.stop(0.5)


async def test_a_refusal_has_a_reason_and_a_delay(services: Any) -> None:
    """Calls beyond the limit are refused with a status, a reason and a retry delay."""
    gateway, channel, stub = await started(
        services,
        min_computing=1,
        max_computing=1,
        min_in_flight=1,
        max_streams=100,
        answer_cache_mib=0,
        precomputed_pages=False,
    )

    async def ask(number: int) -> pb.RecommendResponse:
        metadata = (("x-request-id", f"call-{number}"),)
        request = request_for(f"u{number}")
        answer: pb.RecommendResponse = await stub.Recommend(
            request, timeout=TIMEOUT_S, metadata=metadata
        )
        return answer

    results = await asyncio.gather(*map(ask, range(100)), return_exceptions=True)
    refused = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    answered = [r for r in results if not isinstance(r, BaseException)]
    assert refused
    assert answered
    assert not any(answer.source.degraded for answer in answered)
    assert {error.code() for error in refused} == {EXHAUSTED}
    details = dict(refused[0].trailing_metadata() or ())["grpc-status-details-bin"]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(details).details:
        detail.Unpack(info)
        detail.Unpack(retry)
    assert info.reason == "OVERLOADED"
    for number, error in enumerate(results):
        if isinstance(error, grpc.aio.AioRpcError):
            trailers = dict(error.trailing_metadata() or ())
            assert trailers["x-request-id"] == f"call-{number}"
            assert f"call-{number}".encode() in trailers["grpc-status-details-bin"]
    assert gateway.computing.refused == len(refused)
    assert 0 < retry.retry_delay.ToNanoseconds() < 10e9
    await channel.close()
    await gateway.stop(0.5)


async def test_an_early_refusal_is_like_any_other(services: Any) -> None:
    """The refusal has the details and the request id of the caller, and it is counted."""
    gateway, channel, stub = await started(services)
    request = pb.PredictRatingsRequest(subject=Subject(user_id="u7"), item_ids=["i1"])
    await stub.PredictRatings(request, timeout=TIMEOUT_S)
    async with gateway.computing.admit("a large one", cost=1_000):
        gateway.computing._overload._until = float("inf")  # As if the overload had lasted for long.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictRatings(
                request, timeout=TIMEOUT_S, metadata=(("x-request-id", "call-1"),)
            )
    assert caught.value.code() is EXHAUSTED
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers["x-request-id"] == "call-1"
    request_info, retry = error_details_pb2.RequestInfo(), error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details:
        detail.Unpack(request_info)
        detail.Unpack(retry)
    assert request_info.request_id == "call-1"
    assert retry.retry_delay.ToNanoseconds() > 0
    text = generate_latest(gateway.metrics.registry).decode()
    assert 'marquee_calls_total{code="RESOURCE_EXHAUSTED",method="PredictRatings"} 1.0' in text
    assert 'marquee_call_errors_total{reason="OVERLOADED"} 1.0' in text
    await channel.close()
    await gateway.stop(0.5)


async def test_reasons_are_dropped_first(services: Any) -> None:
    """Under overload, an answer has its items but no reasons, reports that, and is not cached."""
    gateway, channel, stub = await started(services)
    request = request_for("u7", include_reasons=True)
    full = await stub.Recommend(request, timeout=TIMEOUT_S)
    assert full.items[0].reasons
    other = request_for("u8", include_reasons=True)
    gateway.computing.refused_at = float("inf")  # As if a call had just been refused.
    reduced = await stub.Recommend(other, timeout=TIMEOUT_S)
    assert reduced.items
    assert not any(item.reasons for item in reduced.items)
    assert list(reduced.source.degraded_reasons) == [types_pb2.DEGRADED_REASON_REASONS_LEFT_OUT]
    gateway.computing.refused_at = float("-inf")
    again = await stub.Recommend(other, timeout=TIMEOUT_S)
    assert again.items[0].reasons
    assert not again.source.degraded
    assert [i.item_id for i in again.items] == [i.item_id for i in reduced.items]
    await channel.close()
    await gateway.stop(0.5)


async def test_the_slowest_models_are_dropped_next(
    services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If refusals do not suffice, answers omit slow models, report that, and are not cached.

    This does not happen while the backends are hardly busy with models.
    """
    gateway, channel, stub = await started(services, list_cache_mib=0)
    request = request_for("u7", include_seen=True, page_size=10)
    whole = await stub.Recommend(request_for("u8", include_seen=True), timeout=TIMEOUT_S)
    assert {w.model for w in whole.source.models} > {"item_cf", "ease", "mf"}
    # As if the lowest limit had been too high for long, and the models had taken this long.
    gateway.computing.refused_at, gateway.computing._slow_since = float("inf"), float("-inf")
    times = {"cf": {"item_cf": 9.0, "ease": 1.0}, "inference": {"mf": 1.0}}
    for backend in gateway.backends:
        for replica in backend.replicas.values():
            replica.model_seconds = times[backend.name]
            replica.probe = nothing
    idle = await stub.Recommend(request_for("u9", include_seen=True), timeout=TIMEOUT_S)
    assert not idle.source.degraded
    monkeypatch.setattr(ModelLoad, "is_high", lambda *_: True)
    first = await stub.Recommend(request, timeout=TIMEOUT_S)
    assert list(first.source.degraded_reasons) == [types_pb2.DEGRADED_REASON_MODELS_LEFT_OUT]
    assert "item_cf" not in {w.model for w in first.source.models}
    assert {w.model for w in first.source.models} > {"ease", "mf"}
    assert all(item.predicted_stars for item in first.items)
    # After the overload, further pages are still ranked like the first one.
    gateway.computing.refused_at = float("-inf")
    longer = request_for("u7", include_seen=True, page_size=20)
    request.page_token = first.next_page_token
    second = await stub.Recommend(request, timeout=TIMEOUT_S)
    assert "item_cf" not in {w.model for w in second.source.models}
    assert not {i.item_id for i in first.items} & {i.item_id for i in second.items}
    answer = await stub.Recommend(longer, timeout=TIMEOUT_S)
    assert not answer.source.degraded
    assert "item_cf" in {w.model for w in answer.source.models}
    await channel.close()
    await gateway.stop(0.5)


async def test_status_and_health_are_answered_under_full_load(services: Any) -> None:
    """With all calls in use, GetStatus and health checks succeed while other calls are refused."""
    gateway, channel, stub = await started(services, max_calls=1)
    gateway.bound.calls.singles += 1  # As if a call that never ends were in progress.
    await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    health: Any = health_pb2_grpc.HealthStub(channel)
    await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    code, reason, _ = await error_of(stub.Recommend(request_for(), timeout=TIMEOUT_S))
    assert (code, reason) == (EXHAUSTED, "OVERLOADED")
    await channel.close()
    await gateway.stop(0.5)


async def test_a_call_whose_request_does_not_arrive_is_ended(services: Any) -> None:
    """A stream without a request ends after the receive timeout; one that is closed is refused."""
    gateway, channel, _ = await started(services, receive_timeout=0.2)
    call = channel.stream_unary(RECOMMEND, lambda data: data, lambda data: data)

    async def silence() -> AsyncIterator[bytes]:
        await asyncio.sleep(TIMEOUT_S)
        yield b""

    async def nothing() -> AsyncIterator[bytes]:
        for data in list[bytes]():
            yield data

    code, reason, _ = await error_of(call(silence(), timeout=TIMEOUT_S))
    assert (code.name, reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert gateway.bound.calls.singles == 0
    await channel.close()
    # Over the default receive timeout, which is long enough for a busy machine.
    async with grpc.aio.insecure_channel(services.address) as default_channel:
        call = default_channel.stream_unary(RECOMMEND, lambda data: data, lambda data: data)
        code, reason, _ = await error_of(call(nothing(), timeout=TIMEOUT_S))
    assert (code, reason) == (INVALID, "INVALID_FIELD")
    await gateway.stop(0.5)


async def test_an_unread_batch_is_ended(services: Any) -> None:
    """Ending it frees its slot and its computation, and a batch that is read continues."""
    gateway, channel, stub = await started(services, stall_timeout=0.5)
    unread = stub.BatchRecommend(batch_of(MANY), timeout=TIMEOUT_S)
    await unread.read()
    await services.until(lambda: gateway.bound.calls.batches.total() == 1)
    await services.until(lambda: gateway.bound.calls.batches.total() == 0)

    async def read_on() -> None:
        while await unread.read() is not grpc.aio.EOF:
            pass

    code, reason, _ = await error_of(read_on())
    assert (code, reason) == (EXHAUSTED, "OVERLOADED")
    count = 0
    async for message in stub.BatchRecommend(batch_of(200), timeout=TIMEOUT_S):
        count += len(message.answers)
    assert count == 200
    await channel.close()
    await gateway.stop(0.5)


async def test_one_caller_cannot_use_all_batches(services: Any) -> None:
    """Batches of one caller are refused beyond half of the limit; single calls are answered."""
    gateway, channel, stub = await started(services, max_batches=4)
    held = [stub.BatchRecommend(batch_of(MANY), timeout=TIMEOUT_S) for _ in range(2)]
    await asyncio.gather(*(call.read() for call in held))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.BatchRecommend(batch_of(1), timeout=TIMEOUT_S).read()
    assert caught.value.code() is EXHAUSTED
    assert (await stub.Recommend(request_for(), timeout=TIMEOUT_S)).items
    for call in held:
        call.cancel()
    await services.until(lambda: gateway.bound.calls.batches.total() == 0)
    await channel.close()
    await gateway.stop(0.5)


async def test_each_identity_has_its_own_share(services: Any, tmp_path: Path) -> None:
    """The share of one identity is independent of another one on the same host."""
    file = tmp_path / "tokens"
    file.write_text("shop recommend first\nsite recommend second\n")
    gateway, channel, stub = await started(services, max_batches=4, tokens_file=str(file))

    def batch(token: str, count: int) -> Any:
        metadata = (("authorization", f"Bearer {token}"),)
        return stub.BatchRecommend(batch_of(count), timeout=TIMEOUT_S, metadata=metadata)

    held = [batch("first", MANY) for _ in range(2)]
    await asyncio.gather(*(call.read() for call in held))
    code, reason, _ = await error_of(batch("first", 1).read())
    assert (code, reason) == (EXHAUSTED, "OVERLOADED")
    assert len((await batch("second", 1).read()).answers) == 1
    for call in held:
        call.cancel()
    await channel.close()
    await gateway.stop(0.5)


async def test_a_request_with_too_many_elements_is_refused(stub: Any) -> None:
    """Two million empty subjects in 4 MB are refused, and the error names the field."""
    request = pb.BatchRecommendRequest.FromString(b"\x0a\x00" * 2_000_000)

    async def read() -> None:
        async for _ in stub.BatchRecommend(request, timeout=TIMEOUT_S):
            pass

    code, reason, fields = await error_of(read())
    assert (code, reason, fields) == (INVALID, "INVALID_FIELD", ["subjects"])


async def test_a_distant_deadline_is_shortened(services: Any) -> None:
    """No call takes longer than the gateway allows."""
    # Neither the deadline of the caller nor the stall timeout can end the batch in this test.
    never = 10 * WAIT_S
    gateway, channel, stub = await started(services, max_deadline=0.5, stall_timeout=never)
    unread = stub.BatchRecommend(batch_of(MANY), timeout=never)
    await unread.read()
    await services.until(lambda: gateway.bound.calls.batches.total() == 0)
    unread.cancel()
    await channel.close()
    await gateway.stop(0.5)


async def test_a_batch_survives_the_shutdown_of_its_gateway(services: Any) -> None:
    """Subjects in progress are answered, and the client requests the rest from another gateway."""
    options: Any = {"batch_parallel": 1}
    second = await services.start_gateway(**options)
    await services.until_full(second)
    first = await services.start_gateway(**options)
    await services.until_full(first)
    answered: list[int] = []
    # A health watch would delay the end of the gateway until its grace period is over.
    client = marquee.AsyncClient(f"127.0.0.1:{first.bound.port}", health_check=False)
    elsewhere = marquee.AsyncClient(f"127.0.0.1:{second.bound.port}", health_check=False)
    async with client, elsewhere:
        users = [marquee.Subject(liked_item_ids=[f"i{n % 20}"]) for n in range(400)]
        stopping: asyncio.Task[None] | None = None
        # The only gateway of this client stops; the answers that it sent before are complete.
        with suppress(marquee.Unavailable):
            async for answer in client.batch_recommend(users, timeout=TIMEOUT_S):
                assert answer.error is None
                answered.append(answer.index)
                if stopping is None:
                    stopping = asyncio.create_task(first.stop(TIMEOUT_S))
        assert stopping is not None
        await stopping
        assert 0 < len(answered) < len(users)
        assert len(set(answered)) == len(answered)
        rest = [user for n, user in enumerate(users) if n not in set(answered)]
        found = [answer async for answer in elsewhere.batch_recommend(rest)]
    assert len(found) + len(answered) == len(users)
    await second.stop(0.5)
