"""The effect of recorded feedback on the next answers of every gateway."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

import marquee
from gateway.feedback.conftest import client_of, start_with_feedback
from marquee import FeedbackEvent, FeedbackKind, SubjectKind
from marquee_core.release.parsing import parse_manifest
from marquee_services.gateway.gateway import Gateway
from toy.waiting import until

RATINGS = {"i1": 5.0, "i2": 1.0, "i3": 4.0}


async def until_read(replicas: list[Gateway], position: int) -> None:
    """Wait until every gateway has read the log up to a position."""
    await until(lambda: all(gateway.fresh.position >= position for gateway in replicas))


def items_of(page: marquee.Recommendations) -> list[tuple[str, float | None]]:
    """Return the items of a page with their predicted stars."""
    return [(item.item_id, item.predicted_stars) for item in page]


async def test_recorded_ratings_have_the_effect_of_ratings_in_a_request(
    replicas: list[Gateway], clients: list[marquee.AsyncClient]
) -> None:
    """This holds on every gateway, for a known user and for one that the release does not know."""
    for user, kind in (
        ("u7", SubjectKind.KNOWN_WITH_FRESH_RATINGS),
        ("new", SubjectKind.VISITOR),
    ):
        for _ in range(3):  # So that the answers are stored.
            plain = [await client.recommend(user) for client in clients]
        expected = await clients[0].recommend(user, ratings=RATINGS)
        recorded = await clients[0].feedback.rate(user, RATINGS)
        assert recorded.recorded_count == 3
        await until_read(replicas, recorded.log_position)
        for client, before in zip(clients, plain, strict=True):
            answer = await client.recommend(user)
            assert answer.subject_kind is kind
            assert items_of(answer) == items_of(expected) != items_of(before)
            assert not {item.item_id for item in answer} & RATINGS.keys()
            assert answer.unknown_item_ids == ()
            cached = await client.recommend(user)
            assert items_of(cached) == items_of(answer)
            (inside,) = [answer async for answer in client.batch_recommend([user])]
            assert items_of(inside.unwrap()) == items_of(answer)
            seen = await client.predict_ratings(user, ["i9"])
            same = await client.predict_ratings(
                marquee.Subject("" if user == "new" else user, RATINGS), ["i9"]
            )
            assert seen[0].stars == pytest.approx(same[0].stars)
    for gateway in replicas:
        assert gateway.metrics.answers.labels("cached")._value.get() >= 2


async def test_each_kind_of_event_has_its_documented_effect(
    replicas: list[Gateway], clients: list[marquee.AsyncClient]
) -> None:
    """Likes and dislikes are the ends of the scale; views, clicks and short plays do nothing."""
    client = clients[0]
    events = [
        FeedbackEvent(user_id="new", item_id="i1", kind=FeedbackKind.LIKE),
        FeedbackEvent(user_id="new", item_id="i2", kind=FeedbackKind.DISLIKE),
        FeedbackEvent(user_id="new", item_id="i3", kind=FeedbackKind.PLAY, share_watched=0.9),
        FeedbackEvent(user_id="new", item_id="i4", kind=FeedbackKind.PLAY, share_watched=0.1),
        FeedbackEvent(user_id="new", item_id="i5", kind=FeedbackKind.VIEW),
        FeedbackEvent(user_id="new", item_id="i6", kind=FeedbackKind.CLICK),
        FeedbackEvent(user_id="new", item_id="i1", kind=FeedbackKind.PLAY, share_watched=1.0),
        FeedbackEvent(user_id="new", item_id="not-in-the-release", stars=3.0),
    ]
    recorded = await client.feedback.record(events)
    assert recorded.recorded_count == len(events)
    await until_read(replicas, recorded.log_position)
    answer = await client.recommend("new", page_size=200)
    expected = await client.recommend(ratings={"i1": 5, "i2": 1, "i3": 4}, page_size=200)
    assert items_of(answer) == items_of(expected)
    assert {"i4", "i5", "i6"} <= {item.item_id for item in answer}


async def test_a_play_does_not_outweigh_a_training_rating(
    replicas: list[Gateway], clients: list[marquee.AsyncClient]
) -> None:
    """An explicit rating from before the training outweighs a recorded play."""
    release = replicas[0].releases.serving
    user = release.users.index("u7")
    rated = release.catalogue.items.id(int(release.data.matrix.seen(user)[0]))
    before = await clients[0].recommend("u7")
    recorded = await clients[0].feedback.record(
        [FeedbackEvent(user_id="u7", item_id=rated, kind=FeedbackKind.PLAY, share_watched=1.0)]
    )
    await until_read(replicas, recorded.log_position)
    after = await clients[0].recommend("u7")
    assert after.subject_kind is SubjectKind.KNOWN
    assert items_of(after) == items_of(before)


async def test_the_requests_ratings_replace_recorded_ones(
    replicas: list[Gateway], clients: list[marquee.AsyncClient]
) -> None:
    """The ratings in a request are the most recent ones."""
    recorded = await clients[0].feedback.rate("new", {"i1": 1.0, "i2": 5.0})
    await until_read(replicas, recorded.log_position)
    answer = await clients[0].recommend("new", ratings={"i1": 5.0})
    expected = await clients[0].recommend(ratings={"i2": 5.0, "i1": 5.0})
    assert items_of(answer) == items_of(expected)


async def test_a_deleted_event_no_longer_has_an_effect(
    replicas: list[Gateway], clients: list[marquee.AsyncClient]
) -> None:
    """On every gateway, the answer is the one from before the event."""
    before = await clients[1].recommend("u7")
    await clients[0].feedback.rate("u7", RATINGS)
    deleted = [await clients[0].feedback.delete("u7", item_id=item) for item in RATINGS]
    assert [each.deleted_count for each in deleted] == [1, 1, 1]
    await until_read(replicas, deleted[-1].log_position)
    for client in clients:
        assert items_of(await client.recommend("u7")) == items_of(before)


async def test_a_forgotten_user_is_unknown_to_every_gateway(
    replicas: list[Gateway], clients: list[marquee.AsyncClient]
) -> None:
    """Training ratings are hidden as well, and later events of the user count again."""
    cold = items_of(await clients[0].recommend("nobody"))
    await clients[0].recommend("u7")
    await clients[0].feedback.rate("u7", RATINGS)
    forgotten = await clients[0].feedback.forget("u7")
    assert forgotten.deleted_count == 3
    await until_read(replicas, forgotten.log_position)
    for client in clients:
        answer = await client.recommend("u7")
        assert answer.subject_kind is SubjectKind.COLD_START
        assert items_of(answer) == cold
    assert (await clients[1].feedback.events("u7")).items == ()
    recorded = await clients[1].feedback.rate("u7", RATINGS)
    await until_read(replicas, recorded.log_position)
    answer = await clients[0].recommend("u7")
    assert answer.subject_kind is SubjectKind.VISITOR
    assert items_of(answer) == items_of(await clients[0].recommend(ratings=RATINGS))


@pytest.mark.parametrize("user", ["u7", "new"])
async def test_feedback_does_not_change_the_pages_of_a_list(
    replicas: list[Gateway], clients: list[marquee.AsyncClient], user: str
) -> None:
    """Feedback between two pages neither repeats nor skips an item."""
    recorded = await clients[0].feedback.rate(user, {"i1": 5.0})
    await until_read(replicas, recorded.log_position)
    whole = await clients[0].recommend(user, page_size=60)
    ids: list[str] = []
    token = ""
    for number in range(3):
        client = clients[number % 2]
        page = await client.recommend(user, page_size=20, page_token=token)
        ids += [item.item_id for item in page]
        token = page.next_page_token
        recorded = await client.feedback.rate(user, {page[0].item_id: 1.0, page[5].item_id: 5.0})
        await until_read(replicas, recorded.log_position)
    assert ids == [item.item_id for item in whole]
    await clients[0].feedback.delete(user, item_id="i1")
    forgotten = await clients[0].feedback.forget(user)
    await until_read(replicas, forgotten.log_position)
    with pytest.raises(marquee.FailedPrecondition) as caught:
        await clients[0].recommend(user, page_size=20, page_token=token)
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"


async def test_a_gateway_reads_the_log_before_it_serves(
    services: Any, replicas: list[Gateway], clients: list[marquee.AsyncClient], feedback_url: str
) -> None:
    """The first answer of a gateway that starts later includes all recorded feedback."""
    await clients[0].feedback.rate("new", RATINGS)
    late = await start_with_feedback(services, feedback_url)
    async with client_of(late) as client:
        answer = await client.recommend("new")
        assert answer.subject_kind is SubjectKind.VISITOR
    await late.stop(0.5)


async def test_a_replaced_log_is_read_from_the_beginning(services: Any, tmp_path: Path) -> None:
    """After restoring a backup, feedback that the backup lacks is no longer used."""
    path = tmp_path / "log.sqlite"
    gateway = await start_with_feedback(services, f"sqlite:///{path}")
    async with client_of(gateway) as client:
        await client.feedback.rate("old", {"i1": 5.0})
        recorded = await client.feedback.rate("lost", {"i1": 5.0})
        await until_read([gateway], recorded.log_position)
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM feedback_log WHERE user_id = 'lost'"))
        engine.dispose()
        await until(lambda: gateway.fresh.position == 1)
        assert (await client.recommend("lost")).subject_kind is SubjectKind.COLD_START
        assert (await client.recommend("old")).subject_kind is SubjectKind.VISITOR
    await gateway.stop(0.5)


async def test_feedback_that_the_release_includes_is_not_folded_in_again(
    replicas: list[Gateway], clients: list[marquee.AsyncClient]
) -> None:
    """Feedback up to the release's position in the log is not folded in a second time."""
    recorded = await clients[0].feedback.rate("new", {"i1": 5.0})
    await until_read(replicas, recorded.log_position)
    release = replicas[0].releases.serving
    fresh = replicas[0].fresh
    assert fresh.of("new", release.manifest.feedback_position).events
    trained = replace(release.manifest, feedback_position=recorded.log_position)
    again = parse_manifest(trained.to_json().encode(), trained.release_id)
    assert again.feedback_position == recorded.log_position
    assert not fresh.of("new", again.feedback_position).version
