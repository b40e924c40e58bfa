"""Servers survive the loss of the volume with the release store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import marquee
from marquee_services.server.releases.follower import ReleaseFollower
from toy.services import Services


async def test_a_lost_store_is_reported_and_survived(services: Services) -> None:
    """An empty folder in its place is an error of the store, and calls are still answered."""
    store = Path(services.store.url)
    hidden = store.with_name("hidden")
    followers: list[ReleaseFollower[Any]] = [
        services.gateway.follower,
        *(s.follower for s in services.scoring.values()),
    ]
    store.rename(hidden)
    store.mkdir()
    await services.until(lambda: all(f.failed_polls for f in followers))
    async with marquee.AsyncClient(services.address, timeout=60) as client:
        answer = await client.recommend("a new user")
    assert answer.source.release_id == services.first.release_id
    store.rmdir()
    hidden.rename(store)
    lost = [f.failed_polls for f in followers]
    before = [f.last_poll for f in followers]
    await services.until(
        lambda: all(f.last_poll > t for f, t in zip(followers, before, strict=True))
    )
    assert all(f.failed_polls - n <= 1 for f, n in zip(followers, lost, strict=True))
