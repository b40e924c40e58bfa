"""Releases with models of some backends only, or of none, over real sockets."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marquee import AsyncClient, FailedPrecondition, SubjectKind
from marquee_core.service_names import BACKENDS
from toy.services import toy_services

SUBSETS = [("cf",), ("inference",), ()]
VISITOR = {"i1": 5.0, "i2": 1.0}


@pytest.mark.parametrize("backends", SUBSETS, ids="+".join)
async def test_answers_are_complete_without_the_other_backends(
    backends: tuple[str, ...], tmp_path: Path
) -> None:
    """No answer is degraded, and the status lists the backends that the release uses."""
    async with (
        toy_services(tmp_path, backends) as services,
        AsyncClient(services.address, timeout=60) as client,
    ):
        # The other backends are not running.
        for name in set(BACKENDS) - set(backends):
            await services.scoring.pop(name).stop()
        known = await client.recommend("u1", include_reasons=True)
        visitor = await client.recommend(ratings=VISITOR)
        unknown = await client.recommend("nobody")
        assert visitor.subject_kind is SubjectKind.VISITOR
        for answer in (known, visitor, unknown):
            assert answer.items
            assert not answer.source.degraded
            assert not answer.source.degraded_reasons
        similar = await client.similar_items("i1")
        assert not similar.source.degraded
        assert bool(similar.items) is bool(backends)
        predicted = await client.predict_ratings("u1", ["i3"])
        assert predicted[0].stars is not None
        assert not predicted.source.degraded
        status = await client.status()
        assert [backend.backend for backend in status.backends] == list(backends)
        assert status.release is not None
        assert not status.release.refitted
        with pytest.raises(FailedPrecondition):
            await client.similar_items("i1", model="popularity")


async def test_pages_are_consistent_without_any_backend(tmp_path: Path) -> None:
    """The gateway's own models rank the whole catalogue, page by page."""
    async with (
        toy_services(tmp_path, ()) as services,
        AsyncClient(services.address, timeout=60) as client,
    ):
        first = await client.recommend("u1", page_size=5)
        second = await client.recommend("u1", page_size=5, page_token=first.next_page_token)
        assert [item.rank for item in (*first, *second)] == list(range(1, 11))
        assert len({item.item_id for item in (*first, *second)}) == 10


async def test_a_server_without_a_model_of_the_release_is_healthy(tmp_path: Path) -> None:
    """The inference service has loaded the release and is serving."""
    async with toy_services(tmp_path, ["cf"]) as services:
        scoring = services.scoring["inference"]
        assert [engine.scorers for engine in scoring.follower.releases] == [{}]
        async with grpc.aio.insecure_channel(scoring.address) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest()
            )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_promotion_waits_only_for_backends_that_the_release_uses(tmp_path: Path) -> None:
    """The gateway switches to a release of CF models although the inference service is down."""
    async with toy_services(tmp_path, ["cf"]) as services:
        await services.scoring.pop("inference").stop()
        manifest = await services.publish(1, backends=["cf"])
        await services.until(
            lambda: services.gateway.releases.serving.release_id == manifest.release_id
        )
