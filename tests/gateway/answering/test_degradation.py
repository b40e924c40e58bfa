"""Degraded answers: what is still answered without a backend, and what the answer reports."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, error_of, request_for
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.release.ensemble import Blend
from marquee_core.service_names import BACKENDS
from marquee_services.gateway.answering.degradation import DEGRADED_REASONS, degraded_reasons
from marquee_services.gateway.backends.failures import BackendError, BackendFailure, Failure


async def test_a_further_page_needs_the_backends_of_the_first(services: Any) -> None:
    """Without cached scores, a list is ranked again by the backends that ranked its first page."""
    gateway = await services.start_gateway(list_cache_mib=0, answer_cache_mib=0)
    await services.until_full(gateway)
    inference = services.scoring["inference"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        whole, degraded = request_for(page_size=5), request_for(page_size=5)
        whole.page_token = (await stub.Recommend(whole, timeout=TIMEOUT_S)).next_page_token
        await inference.stop()
        code, reason, _ = await error_of(stub.Recommend(whole, timeout=TIMEOUT_S))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE")
        degraded.page_token = (await stub.Recommend(degraded, timeout=TIMEOUT_S)).next_page_token
        await services.start_backend("inference", inference.bound.port)
        await services.until_full(gateway)
        page = await stub.Recommend(whole, timeout=TIMEOUT_S)
        assert not page.source.degraded
        # The page is ranked without inference, like its first page, and the answer reports it.
        page = await stub.Recommend(degraded, timeout=TIMEOUT_S)
        assert page.source.degraded_reasons == [types_pb2.DEGRADED_REASON_INFERENCE_UNAVAILABLE]
    await gateway.stop(0.5)


async def test_a_further_page_does_not_need_a_backend_without_a_ranking_weight(
    services: Any,
) -> None:
    """The list is ranked like its first page, and only the lost backend's stars are missing."""
    gateway = await services.start_gateway(list_cache_mib=0, answer_cache_mib=0)
    await services.until_full(gateway)
    blends = gateway.releases.serving.ensemble.by_backends
    both = blends[frozenset(BACKENDS)]
    weights = {name: weight for name, weight in both.ranking.weights.items() if name != "mf"}
    blends[frozenset(BACKENDS)] = replace(both, ranking=Blend(weights, 0.0))
    request = request_for(page_size=5)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        first = await stub.Recommend(request, timeout=TIMEOUT_S)
        request.page_token = first.next_page_token
        whole = await stub.Recommend(request, timeout=TIMEOUT_S)
        await services.scoring["inference"].stop()
        page = await stub.Recommend(request, timeout=TIMEOUT_S)
        assert not whole.source.degraded
        assert page.source.degraded_reasons == [types_pb2.DEGRADED_REASON_INFERENCE_UNAVAILABLE]
        assert [item.item_id for item in page.items] == [item.item_id for item in whole.items]
    await gateway.stop(0.5)


async def test_a_failed_retrieval_degrades_the_answer(
    services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidates of the backend are missing, although it scores those of the others."""
    gateway = await services.start_gateway(dense_limit=10, candidates=20)
    await services.until_full(gateway)

    async def fail(*_: Any) -> Any:
        raise BackendError("cf", Failure.TIMEOUT, "no answer in time")

    (replica,) = gateway.backends[0].replicas.values()
    monkeypatch.setattr(replica, "retrieve", fail)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        for _ in range(2):
            answer = await RecommenderServiceStub(channel).Recommend(
                request_for(), timeout=TIMEOUT_S
            )
            assert answer.source.degraded_reasons == [types_pb2.DEGRADED_REASON_CF_TIMEOUT]
            assert len(answer.items) == 20
    await gateway.stop(0.5)


async def test_answers_are_degraded_until_a_lost_backend_returns(stub: Any, services: Any) -> None:
    """The remaining models answer, and finally those of the gateway itself."""
    inference = services.scoring["inference"]
    await inference.stop()
    answer = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
    assert answer.source.degraded
    assert "mf" not in {w.model for w in answer.source.models}
    assert "item_cf" in {w.model for w in answer.source.models}
    reasons = answer.source.degraded_reasons
    assert reasons == [types_pb2.DEGRADED_REASON_INFERENCE_UNAVAILABLE]
    single_model = request_for(model="mf")
    code, reason, _ = await error_of(stub.Recommend(single_model, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE")
    await services.scoring["cf"].stop()
    answer = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
    assert len(answer.items) == 20
    assert {w.model for w in answer.source.models} == {"baseline", "popularity"}
    assert len(answer.source.degraded_reasons) == 2
    for backend in ("cf", "inference"):
        await services.start_backend(backend, services.scoring[backend].bound.port)
    await services.until_full()
    answer = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
    assert not answer.source.degraded


def test_every_backend_and_failure_has_a_degraded_reason() -> None:
    """The table is complete, and each entry is the reason with that name."""
    assert set(DEGRADED_REASONS) == set(product(BACKENDS, Failure))
    for (backend, failure), reason in DEGRADED_REASONS.items():
        name = types_pb2.DegradedReason.Name(reason)
        assert name == f"DEGRADED_REASON_{backend.upper()}_{failure.name}"
    others = {
        types_pb2.DEGRADED_REASON_UNSPECIFIED,
        types_pb2.DEGRADED_REASON_REASONS_LEFT_OUT,
        types_pb2.DEGRADED_REASON_MODELS_LEFT_OUT,
    }
    found = list(DEGRADED_REASONS.values())
    assert sorted(found) == sorted(set(types_pb2.DegradedReason.values()) - others)


def test_a_repeated_failure_is_reported_once() -> None:
    """A backend may fail in the same way during retrieval and explanation."""
    failures = [
        BackendFailure("inference", Failure.TIMEOUT),
        BackendFailure("cf", Failure.TIMEOUT),
        BackendFailure("inference", Failure.TIMEOUT),
    ]
    assert degraded_reasons(failures) == [
        types_pb2.DEGRADED_REASON_INFERENCE_TIMEOUT,
        types_pb2.DEGRADED_REASON_CF_TIMEOUT,
    ]
