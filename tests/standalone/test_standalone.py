"""The standalone server gives the answers of three services and of scoring every item."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from gateway.calls import TIMEOUT_S, Rating, Subject, error_of, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.experiments.experiment import Arm
from marquee_core.experiments.store import ExperimentStore
from marquee_services.gateway.gateway import Gateway
from marquee_services.standalone.main import start
from marquee_services.standalone.settings import StandaloneSettings
from toy.experiments import toy_experiment, users_of
from toy.release import TOY_LOADERS, USERS
from toy.services import Services, standalone_server

VISITOR = Subject(ratings=[Rating(item_id="i3", stars=5), Rating(item_id="i9", stars=1)])


@pytest_asyncio.fixture
async def standalone(services: Services, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A standalone server over the store of the three services."""
    async with standalone_server(services, tmp_path) as gateway:
        yield gateway


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    """A stub for the gateway of the three services."""
    return RecommenderServiceStub(channel)


@pytest_asyncio.fixture
async def local_stub(standalone: Gateway) -> AsyncIterator[Any]:
    """A stub for the standalone server."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{standalone.bound.port}") as channel:
        yield RecommenderServiceStub(channel)


def comparable(answer: pb.RecommendResponse) -> pb.RecommendResponse:
    """Return an answer without the parts that differ each time."""
    answer.ClearField("recommendation_id")
    answer.ClearField("next_page_token")
    answer.source.ClearField("server_time_us")
    return answer


@pytest.mark.parametrize(
    "request_",
    [
        request_for("u7", page_size=30),
        request_for("u7", include_reasons=True, include_metadata=True),
        request_for("u7", diversity=0.5, filter={"genres_any": ["War"]}),
        request_for("u7", model="ease"),
        request_for("u7", min_predicted_stars=3.0),
        pb.RecommendRequest(subject=VISITOR),
        pb.RecommendRequest(subject=Subject(user_id="nobody")),
    ],
)
async def test_answers_are_those_of_three_services(
    stub: Any, local_stub: Any, request_: pb.RecommendRequest
) -> None:
    """The same code answers, so scores are bit-identical."""
    remote = await stub.Recommend(request_, timeout=TIMEOUT_S)
    assert remote.items
    local = await local_stub.Recommend(request_, timeout=TIMEOUT_S)
    assert comparable(local) == comparable(remote)


async def test_all_other_methods_are_answered(local_stub: Any) -> None:
    """Predictions, similar items and the status also need the local backends."""
    predicted = await local_stub.PredictRatings(
        pb.PredictRatingsRequest(subject=VISITOR, item_ids=["i1", "i2"]), timeout=TIMEOUT_S
    )
    assert all(1 <= p.stars <= 5 for p in predicted.predictions)
    assert not predicted.source.degraded
    similar = await local_stub.SimilarItems(pb.SimilarItemsRequest(item_id="i1"), timeout=TIMEOUT_S)
    assert similar.items
    status = await local_stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    assert {b.backend: b.target for b in status.backends} == {
        "cf": "in this process",
        "inference": "in this process",
    }


async def test_the_first_answer_is_not_degraded(services: Services, tmp_path: Path) -> None:
    """The server listens only once both engines have loaded the promoted release."""
    settings = StandaloneSettings(
        store=services.store.url, listen="127.0.0.1:0", cache_dir=str(tmp_path / "cache")
    )
    gateway, followers = await start(settings, TOY_LOADERS)
    assert all(follower.releases for follower in followers)
    await services.until(lambda: gateway.releases.loaded and gateway.releases.update() is None)
    address = f"127.0.0.1:{gateway.bound.port}"
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await RecommenderServiceStub(channel).Recommend(
            pb.RecommendRequest(subject=VISITOR), timeout=TIMEOUT_S
        )
    assert not answer.source.degraded
    await gateway.stop(0.5)


async def test_a_promotion_reaches_all_components(
    local_stub: Any, services: Services, standalone: Gateway
) -> None:
    """The gateway switches once both engines hold the new release, and degrades no answer."""
    second = await services.publish(1)
    while True:
        answer = await local_stub.Recommend(request_for("u7"), timeout=TIMEOUT_S)
        assert not answer.source.degraded
        if answer.source.release_id == second.release_id:
            break
        assert answer.source.release_id == services.first.release_id
        await asyncio.sleep(0.01)


async def test_errors_are_those_of_three_services(stub: Any, local_stub: Any) -> None:
    """An invalid request has the same status and reason."""
    bad = pb.RecommendRequest(subject=Subject(ratings=[Rating(item_id="i1", stars=9)]))
    assert await error_of(local_stub.Recommend(bad, timeout=TIMEOUT_S)) == await error_of(
        stub.Recommend(bad, timeout=TIMEOUT_S)
    )


async def test_a_slow_engine_degrades_the_answer(
    local_stub: Any, standalone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that does not answer in time is left out, like a remote one."""

    async def late(*_: Any) -> Any:
        raise TimeoutError

    cf = next(backend for backend in standalone.backends if backend.name == "cf")
    replica: Any = cf._replica  # type: ignore[attr-defined]
    monkeypatch.setattr(replica._rankings, "call", late)
    answer = await local_stub.Recommend(pb.RecommendRequest(subject=VISITOR), timeout=TIMEOUT_S)
    assert answer.source.degraded_reasons == [types_pb2.DEGRADED_REASON_CF_TIMEOUT]
    assert len(answer.items) == 20


async def test_a_backend_call_ends_at_the_backend_timeout(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call with a distant deadline is answered without an engine that hangs."""
    settings = StandaloneSettings(
        store=services.store.url,
        listen="127.0.0.1:0",
        cache_dir=str(tmp_path / "cache"),
        backend_timeout=0.05,
    )
    gateway, followers = await start(settings, TOY_LOADERS)
    await services.until(lambda: gateway.releases.loaded and gateway.releases.update() is None)
    hangs, released = threading.Event(), threading.Event()

    def score(*_: Any) -> Any:
        hangs.set()
        released.wait()
        raise TimeoutError

    scorer: Any = followers[0].newest().scorers["ease"]
    monkeypatch.setattr(scorer, "score", score)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
            answer = await RecommenderServiceStub(channel).Recommend(
                pb.RecommendRequest(subject=VISITOR), timeout=TIMEOUT_S
            )
        assert hangs.is_set()
        assert types_pb2.DEGRADED_REASON_CF_TIMEOUT in answer.source.degraded_reasons
        assert len(answer.items) == 20
    finally:
        released.set()
        await gateway.stop(0.5)


async def test_the_arms_of_an_experiment_are_served(
    services: Services, standalone: Gateway, local_stub: Any
) -> None:
    """The gateway and both backends in its process keep the releases of the arms loaded."""
    second = await services.publish(1, promote=False)
    experiment = toy_experiment(
        Arm("control", services.first.release_id, 50.0), Arm("b", second.release_id, 50.0)
    )
    ExperimentStore(services.store).start(experiment)
    routing = standalone.routing
    await services.until(
        lambda: routing.experiment is not None and not any(arm.reason for arm in routing.arms)
    )
    for name in ("control", "b"):
        [user] = users_of(experiment, name, 1, USERS)
        answer = await local_stub.Recommend(request_for(user), timeout=TIMEOUT_S)
        assert answer.source.arm == name
        assert answer.source.release_id == experiment.arm(name).release_id
        assert not answer.source.degraded
