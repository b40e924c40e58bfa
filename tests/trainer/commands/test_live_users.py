"""The simulated users of `marquee demo --live`."""

from __future__ import annotations

import marquee
from marquee.testing import FakeGateway
from marquee.v1 import feedback_service_pb2
from marquee.v1 import recommender_service_pb2 as pb
from marquee_trainer.commands.live_users import SimulatedUsers
from marquee_trainer.data.sample import SampleConfig, generate_sample_with_tastes

_RECORD = feedback_service_pb2.RecordFeedbackRequest
SAMPLE = SampleConfig(users=20, items=60, ratings=600)


async def test_users_who_have_rated_everything_rate_nothing() -> None:
    """In a small sample, an experiment may use up the items of some users."""
    _, tastes = generate_sample_with_tastes(SAMPLE, seed=0)
    with FakeGateway() as gateway:
        gateway.on("Recommend", pb.RecommendResponse())
        async with marquee.AsyncClient(gateway.address) as client:
            users = SimulatedUsers([client, client], tastes, seed=0)
            await users.rate_lists(["1", "2"])
            assert await users.measure_delays(["1"]) == []
    assert not users.acknowledged


async def test_tastes_do_not_depend_on_the_order_of_calls() -> None:
    """Runs of the demo with the same seed have the same ratings."""
    _, tastes = generate_sample_with_tastes(SAMPLE, seed=0)
    given = []
    for order in (["1", "2"], ["2", "1"]):
        with FakeGateway() as gateway:
            item = pb.RecommendedItem(item_id="3")
            gateway.on("Recommend", pb.RecommendResponse(items=[item]))
            gateway.on("RecordFeedback", feedback_service_pb2.RecordFeedbackResponse())
            async with marquee.AsyncClient(gateway.address) as client:
                users = SimulatedUsers([client, client], tastes, seed=0)
                for user in order:
                    await users.rate_lists([user])
            requests = [c.request for c in gateway.calls if isinstance(c.request, _RECORD)]
        given.append({e.user_id: e.stars for request in requests for e in request.events})
    assert given[0] == given[1]
    assert given[0].keys() == {"1", "2"}
