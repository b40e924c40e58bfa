"""Which arm of an experiment answers a request."""

from __future__ import annotations

import asyncio
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.calls import TIMEOUT_S, Subject, error_of, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.experiments.experiment import Arm, Experiment
from marquee_core.experiments.recommendation_id import parse_recommendation_id
from marquee_core.experiments.store import ExperimentStore
from marquee_services.gateway.experiments.route import with_ranking
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.releases.follower import ReleaseFollower
from toy.experiments import toy_experiment, until_ready, users_of
from toy.release import USERS
from toy.services import Services

SERVING = health_pb2.HealthCheckResponse.SERVING


async def start(services: Services, *arms: Arm, name: str = "toy") -> Experiment:
    """Start an experiment, and wait until every arm is served."""
    experiment = toy_experiment(*arms, name=name)
    ExperimentStore(services.store).start(experiment)
    await until_ready(services.gateway, services, name)
    return experiment


async def stop(services: Services, name: str = "toy") -> None:
    """End an experiment, and wait until the gateway has noticed."""
    ExperimentStore(services.store).end(name, "stopped")
    await services.until(lambda: services.gateway.routing.experiment is None)


def followers_of(services: Services) -> list[ReleaseFollower[Any]]:
    """Return the release follower of each server."""
    scoring = [scoring.follower for scoring in services.scoring.values()]
    return [services.gateway.follower, *scoring]


def items_of(answer: Any) -> list[tuple[str, float]]:
    """Return the items of an answer with their scores."""
    return [(item.item_id, item.score) for item in answer.items]


async def test_each_user_is_answered_by_the_assigned_arm(stub: Any, services: Services) -> None:
    """This holds for single calls, batches and predicted ratings, and the source names the arm."""
    second = await services.publish(1, promote=False)
    releases = {"control": services.first.release_id, "b": second.release_id}
    experiment = await start(
        services, *(Arm(name, release_id, 50.0) for name, release_id in releases.items())
    )
    users = [*users_of(experiment, "control", 5, USERS), *users_of(experiment, "b", 5, USERS)]
    batch = pb.BatchRecommendRequest(subjects=[Subject(user_id=user) for user in users])
    answers: dict[int, Any] = {}
    async for message in stub.BatchRecommend(batch, timeout=TIMEOUT_S):
        for answer in message.answers:
            answers[answer.subject_index] = answer.recommendations
    for place, user in enumerate(users):
        number = experiment.assign(user)
        arm = experiment.arms[number]
        single = await stub.Recommend(request_for(user), timeout=TIMEOUT_S)
        again = await stub.Recommend(request_for(user), timeout=TIMEOUT_S)
        stars = await stub.PredictRatings(
            pb.PredictRatingsRequest(subject=Subject(user_id=user), item_ids=["i1"]),
            timeout=TIMEOUT_S,
        )
        named = await stub.Recommend(
            request_for(user, release_id=arm.release_id), timeout=TIMEOUT_S
        )
        for answer in (single, again, answers[place], stars):
            assert (answer.source.experiment, answer.source.arm) == ("toy", arm.name)
            assert answer.source.release_id == arm.release_id
        for answer in (single, again, answers[place]):
            assert items_of(answer) == items_of(named)
            origin = parse_recommendation_id(answer.recommendation_id)
            assert origin is not None
            assert origin.arm == number
            assert origin.belongs_to(experiment, user)
        # A request that names its release is outside the experiment.
        assert named.source.experiment == named.source.arm == ""
        assert parse_recommendation_id(named.recommendation_id) is None
    cached = services.gateway.metrics.answers.labels("cached")._value.get()
    assert cached >= len(users), "the second answer of each user was not cached"
    lists = services.gateway.routing._lists
    for name in releases:
        assert lists.labels("toy", name)._value.get() == 15


async def test_the_arms_of_one_release_do_not_share_cached_answers(
    stub: Any, services: Services
) -> None:
    """A cached answer from before the experiment, or of another blend, is never used."""
    release_id = services.first.release_id
    outside = {}
    for number in range(USERS):
        answer = await stub.Recommend(request_for(f"u{number}"), timeout=TIMEOUT_S)
        outside[f"u{number}"] = answer
        assert answer.source.experiment == ""
    experiment = await start(
        services,
        Arm("control", release_id, 50.0),
        Arm("popular", release_id, 50.0, {"popularity": 1.0}),
    )
    popular = set()
    for user, before in outside.items():
        answer = await stub.Recommend(request_for(user), timeout=TIMEOUT_S)
        arm = experiment.arms[experiment.assign(user)].name
        assert answer.source.arm == arm
        assert not answer.source.degraded
        if arm == "control":
            assert items_of(answer) == items_of(before)
        else:
            weights = {w.model: w.ranking_weight for w in answer.source.models if w.ranking_weight}
            assert weights == {"popularity": 1.0}
            assert items_of(answer) != items_of(before)
            popular.add(answer.items[0].score)
            single = await stub.Recommend(request_for(user, model="popularity"), timeout=TIMEOUT_S)
            assert [i.item_id for i in answer.items] == [i.item_id for i in single.items]
            # Stars still come from the whole ensemble.
            assert answer.items[0].predicted_stars != pytest.approx(answer.items[0].score)
    assert popular
    await stop(services)
    for user, before in outside.items():
        after = await stub.Recommend(request_for(user), timeout=TIMEOUT_S)
        assert items_of(after) == items_of(before)
        assert after.source.experiment == after.source.arm == ""


async def test_visitors_without_an_id_get_the_control_and_are_not_counted(
    stub: Any, services: Services
) -> None:
    """Lists of these visitors have ids that belong to no experiment."""
    second = await services.publish(1, promote=False)
    await start(
        services, Arm("control", second.release_id, 50.0), Arm("b", services.first.release_id, 50.0)
    )
    request = pb.RecommendRequest(subject=Subject(liked_item_ids=["i1"]))
    answer = await stub.Recommend(request, timeout=TIMEOUT_S)
    assert (answer.source.arm, answer.source.release_id) == ("control", second.release_id)
    assert parse_recommendation_id(answer.recommendation_id) is None


async def test_further_pages_come_from_the_arm_of_the_first_page(
    stub: Any, services: Services
) -> None:
    """A blend ends with its experiment, while the list of a release can be continued."""
    release_id = services.first.release_id
    experiment = await start(
        services,
        Arm("control", release_id, 50.0),
        Arm("popular", release_id, 50.0, {"popularity": 1.0}),
    )
    firsts = {}
    for arm in ("control", "popular"):
        [user] = users_of(experiment, arm, 1, USERS)
        whole = await stub.Recommend(request_for(user, page_size=20), timeout=TIMEOUT_S)
        first = await stub.Recommend(request_for(user, page_size=10), timeout=TIMEOUT_S)
        further = request_for(user, page_size=10)
        further.page_token = first.next_page_token
        second = await stub.Recommend(further, timeout=TIMEOUT_S)
        assert items_of(first) + items_of(second) == items_of(whole)
        assert second.source.arm == arm
        assert second.recommendation_id == first.recommendation_id
        firsts[arm] = user, first
    await stop(services)
    for arm, (user, first) in firsts.items():
        further = request_for(user, page_size=10)
        further.page_token = first.next_page_token
        if arm == "control":
            answer = await stub.Recommend(further, timeout=TIMEOUT_S)
            assert answer.items[0].rank == 11
        else:
            code, reason, _ = await error_of(stub.Recommend(further, timeout=TIMEOUT_S))
            assert (code, reason) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "PAGE_TOKEN_EXPIRED",
            )


async def test_the_control_replaces_an_arm_whose_release_is_refused(
    stub: Any, services: Services
) -> None:
    """The status names the arm and the reason, and its users do not count for the arm."""
    bad = await services.publish(1, promote=False)
    folder = services.folder / "store" / "releases" / bad.release_id
    (folder / "models" / "mf" / "vectors.npy").write_bytes(b"")
    experiment = toy_experiment(
        Arm("control", services.first.release_id, 50.0), Arm("b", bad.release_id, 50.0)
    )
    ExperimentStore(services.store).start(experiment)

    def reasons() -> dict[str, str]:
        return {state.arm.name: state.reason for state in services.gateway.routing.arms}

    await services.until(lambda: "inference refused" in reasons().get("b", ""))
    [user] = users_of(experiment, "b", 1, USERS)
    answer = await stub.Recommend(request_for(user), timeout=TIMEOUT_S)
    assert not answer.source.degraded
    assert (answer.source.arm, answer.source.release_id) == ("control", services.first.release_id)
    assert parse_recommendation_id(answer.recommendation_id) is None
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    arms = {arm.arm: arm for arm in status.experiment.arms}
    assert "SHA-256" in arms["b"].unavailable_reason
    assert arms["control"].unavailable_reason == ""
    assert services.gateway.routing._fallbacks.labels("toy", "b")._value.get() >= 1


@pytest.mark.slow
async def test_promotions_do_not_unload_the_releases_of_the_arms(
    stub: Any, services: Services
) -> None:
    """They stay loaded in all servers during promotions, and are unloaded after the experiment."""
    second = await services.publish(1, promote=False)
    experiment = await start(
        services, Arm("control", services.first.release_id, 50.0), Arm("b", second.release_id, 50.0)
    )
    arms = {arm.release_id for arm in experiment.arms}
    for seed in (2, 3, 4, 5):
        newest = await services.publish(seed)
        await services.until_full()
        for follower in followers_of(services):
            held = {release.release_id for release in follower.releases}
            assert arms < held
            assert len(held) <= 2 + len(arms)
            assert follower.newest().release_id == newest.release_id
        for name in ("control", "b"):
            [user] = users_of(experiment, name, 1, USERS)
            answer = await stub.Recommend(request_for(user), timeout=TIMEOUT_S)
            assert answer.source.arm == name
            assert not answer.source.degraded
    await stop(services)
    followers = followers_of(services)
    await services.until(lambda: all(len(follower.releases) <= 2 for follower in followers))
    answer = await stub.Recommend(request_for("u1"), timeout=TIMEOUT_S)
    assert answer.source.release_id == newest.release_id


async def test_the_assignment_is_the_same_in_every_replica(stub: Any, services: Services) -> None:
    """A gateway that starts later, as after a restart, assigns every user to the same arm."""
    second = await services.publish(1, promote=False)
    experiment = await start(
        services, Arm("control", services.first.release_id, 50.0), Arm("b", second.release_id, 50.0)
    )
    for backend in list(services.scoring):
        old = services.scoring[backend]
        await old.stop()
        await services.start_backend(backend, old.bound.port)
    await until_ready(services.gateway, services, experiment.name)
    other = await services.start_gateway()
    request = health_pb2.HealthCheckRequest(service="marquee.v1.RecommenderService")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{other.bound.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while (await health.Check(request, timeout=TIMEOUT_S)).status != SERVING:
            await asyncio.sleep(0.01)
    # It serves only after it has read the experiment and loaded its releases.
    assert other.routing.experiment == experiment
    assert not any(state.is_loading for state in other.routing.arms)
    await until_ready(other, services, experiment.name)
    # A gateway that notices a restart of the backends stops using an arm for a moment.
    await services.until(
        lambda: all(
            gateway.routing.route(f"u{number}").arm_name
            == experiment.arms[experiment.assign(f"u{number}")].name
            for number in range(USERS)
            for gateway in (services.gateway, other)
        )
    )
    await other.stop(0.5)


async def test_a_damaged_file_of_experiments_is_ignored(stub: Any, services: Services) -> None:
    """The known experiment continues, promotions are still noticed, and the status reports it."""
    second = await services.publish(1, promote=False)
    await start(
        services, Arm("control", services.first.release_id, 50.0), Arm("b", second.release_id, 50.0)
    )
    Path(services.store.url, "experiments").write_text("{")
    await services.until(lambda: services.gateway.follower.experiments.error)
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    assert "damaged" in status.experiment.last_error
    assert status.experiment.experiment == "toy"
    third = await services.publish(2)
    await services.until_full()
    assert services.gateway.releases.serving.release_id == third.release_id
    assert services.gateway.routing.experiment is not None


async def test_an_arm_with_a_blend_shares_data_of_the_catalogue(
    services: Services,
) -> None:
    """The data is in memory once, and requests of the arm do not compute it again."""
    release = services.gateway.releases.serving
    blended = with_ranking(release, {"popularity": 1.0})
    shared = [
        name
        for name, found in vars(GatewayRelease).items()
        if isinstance(found, cached_property) and not name.startswith("_")
    ]
    assert {"orders", "titles", "unrated_items", "own_scores"} <= set(shared)
    for name in shared:
        assert getattr(blended, name) is getattr(release, name)
