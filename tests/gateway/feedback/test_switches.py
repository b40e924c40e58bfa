"""No event is lost when the gateway switches between releases with different feedback."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import marquee
from gateway.feedback.conftest import client_of, start_with_feedback
from marquee import FeedbackEvent, FeedbackKind, SubjectKind
from marquee_core.feedback.events import EntryType
from marquee_core.feedback.log import EventLog
from marquee_core.release.manifest import Manifest
from marquee_services.gateway.gateway import Gateway
from toy.release import ITEMS, publish_toy
from toy.waiting import WAIT_S, until

_READERS, _WRITERS = 3, 3


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """The file of a log in SQLite."""
    return tmp_path / "log.sqlite"


@pytest_asyncio.fixture
async def gateway(services: Any, log_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that follows the log."""
    started = await start_with_feedback(services, f"sqlite:///{log_path}")
    yield started
    await started.stop(0.5)


def train(services: Any, log_path: Path, seed: int) -> Manifest:
    """Publish a release that includes the log in its current state."""
    with EventLog(f"sqlite:///{log_path}", WAIT_S) as log:
        mark = log.mark()
        recorded: dict[tuple[str, str], float] = {}
        for entry in log.entries(0, mark.position):
            if entry.type is EntryType.EVENT and entry.event is not None:
                recorded[entry.event.user_id, entry.event.item_id] = entry.event.value or 5.0
    folder = services.folder / f"trained{seed}"
    return publish_toy(services.store, folder, seed, recorded=recorded, mark=mark)


async def until_in_service(gateway: Gateway, release_id: str) -> None:
    """Wait until the gateway answers with a release."""
    await until(lambda: gateway.releases.serving.release_id == release_id)


async def until_read(gateway: Gateway, position: int) -> None:
    """Wait until the gateway has read the log up to a position."""
    await until(lambda: gateway.fresh.position >= position)


def shown(page: marquee.Recommendations) -> set[str]:
    """Return the ids of the items of a page."""
    return {item.item_id for item in page}


async def test_no_answer_forgets_an_event_while_releases_change(
    services: Any, gateway: Gateway, log_path: Path
) -> None:
    """Under load, switch to releases that include more feedback, and back to one without any.

    An item that a user has rated is never recommended again once the rating has taken effect, and
    users that the release does not know are not treated as unknown again.
    """
    settled: dict[str, set[str]] = {f"u{n}": set() for n in range(6)}
    settled |= {f"new{n}": set() for n in range(6)}
    users = list(settled)
    answered: dict[str, int] = {}
    forgotten: list[str] = []
    stop = asyncio.Event()

    async def write(number: int) -> None:
        async with client_of(gateway) as client:
            for step in range(ITEMS):
                if stop.is_set():
                    return
                user, item = (
                    users[(step + number * 4) % len(users)],
                    f"i{(step * 7 + number) % 100}",
                )
                recorded = await client.feedback.rate(user, {item: 1.0 + step % 5})
                await until_read(gateway, recorded.log_position)
                settled[user].add(item)

    async def read(number: int) -> None:
        async with client_of(gateway) as client:
            turn = number
            while not stop.is_set():
                turn += 1
                user = users[turn % len(users)]
                known = frozenset(settled[user])
                answer = await client.recommend(user, page_size=100)
                release = answer.source.release_id
                answered[release] = answered.get(release, 0) + 1
                if known & shown(answer):
                    forgotten.append(f"{user} was shown {sorted(known & shown(answer))}")
                if known and answer.subject_kind is SubjectKind.COLD_START:
                    forgotten.append(f"{user} was a stranger to {release}")

    async def until_settled(events: int) -> None:
        await until(lambda: sum(map(len, settled.values())) >= events)

    async def until_answered(release_id: str) -> None:
        before = answered.get(release_id, 0)
        await until(lambda: answered.get(release_id, 0) > before + 10)

    tasks = [asyncio.create_task(write(n)) for n in range(_WRITERS)]
    tasks += [asyncio.create_task(read(n)) for n in range(_READERS)]
    try:
        order = [services.first.release_id]
        for seed, events in ((11, 8), (12, 16)):
            await until_settled(events)
            manifest = await asyncio.to_thread(train, services, log_path, seed)
            order.append(manifest.release_id)
            services.store.promote(manifest.release_id)
            await until_in_service(gateway, manifest.release_id)
            await until_answered(manifest.release_id)
        assert gateway.fresh.known_to(gateway.releases.serving.manifest) > 0
        for release_id in (order[0], order[2]):
            services.store.promote(release_id)
            await until_in_service(gateway, release_id)
            await until_answered(release_id)
    finally:
        stop.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [each for each in results if each is not None]
    assert not forgotten
    assert set(order) <= answered.keys()


async def test_feedback_that_every_release_includes_is_dropped_from_memory(
    services: Any, gateway: Gateway, log_path: Path
) -> None:
    """Answers then come from the release again, as for a user without feedback."""
    async with client_of(gateway) as client:
        await client.feedback.rate("new", {"i1": 5.0, "i2": 1.0, "i3": 4.0})
        await until(lambda: len(gateway.fresh) == 1)
        assert (await client.recommend("new")).subject_kind is SubjectKind.VISITOR
        # The gateway keeps two releases, so the first is dropped when the second new one arrives.
        for seed in (11, 12):
            manifest = await asyncio.to_thread(train, services, log_path, seed)
            services.store.promote(manifest.release_id)
            await until_in_service(gateway, manifest.release_id)
        await until(lambda: len(gateway.fresh) == 0)
        answer = await client.recommend("new", page_size=100)
        assert answer.subject_kind is SubjectKind.KNOWN
        assert not shown(answer) & {"i1", "i2", "i3"}


async def test_an_event_that_the_release_includes_can_be_deleted(
    services: Any, gateway: Gateway, log_path: Path
) -> None:
    """The answer immediately equals that to a user who never sent the event."""
    like = FeedbackEvent(user_id="new", item_id="i2", kind=FeedbackKind.LIKE)
    async with client_of(gateway) as client:
        recorded = await client.feedback.rate("new", {"i1": 5.0, "i3": 4.0})
        recorded = await client.feedback.record([like])
        manifest = await asyncio.to_thread(train, services, log_path, 11)
        services.store.promote(manifest.release_id)
        await until_in_service(gateway, manifest.release_id)
        before = await client.recommend("new", page_size=100)
        assert before.subject_kind is SubjectKind.KNOWN
        deleted = await client.feedback.delete("new", item_id="i1")
        assert deleted.log_position > recorded.log_position
        await until(lambda: gateway.fresh.position >= deleted.log_position)
        answer = await client.recommend("new", page_size=100)
        expected = await client.recommend(ratings={"i3": 4.0, "i2": 5.0}, page_size=100)
        assert [item.item_id for item in answer] == [item.item_id for item in expected]
        assert answer.subject_kind is SubjectKind.KNOWN_WITH_FRESH_RATINGS
        rated = await client.feedback.rate("new", {"i1": 2.0})
        await until(lambda: gateway.fresh.position >= rated.log_position)
        assert "i1" not in shown(await client.recommend("new", page_size=100))
        await client.feedback.delete("new", item_id="i3")
        gone = await client.feedback.delete("new", item_id="i1")
        gone = await client.feedback.delete("new", item_id="i2")
        await until(lambda: gateway.fresh.position >= gone.log_position)
        assert (await client.recommend("new")).subject_kind is SubjectKind.COLD_START


@pytest.mark.parametrize("grows", [False, True])
async def test_a_restored_log_leaves_no_stale_answer(
    services: Any, gateway: Gateway, log_path: Path, grows: bool
) -> None:
    """Positions are reused for other events, which neither caches nor releases may confuse."""
    url = f"sqlite:///{log_path}"
    async with client_of(gateway) as client:
        await client.feedback.rate("u3", {"i1": 5.0})
        backup = log_path.with_name("backup.sqlite")
        with EventLog(url, WAIT_S) as log:
            await asyncio.to_thread(_copy, log_path, backup)
            recorded = await client.feedback.rate("u3", {"i2": 5.0, "i3": 5.0})
            await until(lambda: gateway.fresh.position >= recorded.log_position)
            first = await client.recommend("u3", page_size=100)
            again = await client.recommend("u3", page_size=100)
            assert shown(first) == shown(again)
            manifest = await asyncio.to_thread(train, services, log_path, 11)
            await asyncio.to_thread(_copy, backup, log_path)
            if grows:
                # The log is already longer than before when the gateway reads it.
                log.append([[_rating("u3", f"i{n}") for n in range(4, 9)]])
                later = {f"i{n}" for n in range(4, 9)}
            else:
                await until(lambda: gateway.fresh.position == 1)
                log.append([[_rating("u3", "i4"), _rating("u3", "i5")]])
                later = {"i4", "i5"}
            end = log.position()
        await until(lambda: gateway.fresh.generation > 0 and gateway.fresh.position == end)
        after = await client.recommend("u3", page_size=100)
        assert not shown(after) & (later | {"i1"})
        assert shown(after) >= {"i2", "i3"} - _seen(gateway, "u3")
        # The release includes events that the log has lost, and not those that replaced them.
        services.store.promote(manifest.release_id)
        await until_in_service(gateway, manifest.release_id)
        await until(lambda: gateway.fresh.known_to(manifest) == 0)
        answer = await client.recommend("u3", page_size=100)
        assert not shown(answer) & (later | {"i1", "i2", "i3"})
        expected = await client.recommend(
            "u3", ratings=dict.fromkeys(["i1", *sorted(later)], 5.0), page_size=100
        )
        assert shown(answer) == shown(expected)


def _rating(user: str, item: str) -> Any:
    from marquee_core.feedback.events import FeedbackEvent as Event
    from marquee_core.feedback.events import FeedbackKind as Kind

    return Event(user, item, Kind.RATING, 5.0, 1_000, f"{user}-{item}-restored")


def _seen(gateway: Gateway, user: str) -> set[str]:
    release = gateway.releases.serving
    items: Mapping[int, Any] = dict.fromkeys(
        release.data.matrix.seen(release.users.index(user)).tolist()
    )
    return set(release.catalogue.items.ids(list(items)))


def _copy(source: Path, target: Path) -> None:
    """Copy a database in SQLite over another one while both may be open."""
    import sqlite3

    with (
        sqlite3.connect(source, timeout=WAIT_S) as old,
        sqlite3.connect(target, timeout=WAIT_S) as new,
    ):
        old.backup(new)
    shutil.copystat(source, target)
