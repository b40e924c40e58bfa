"""Servers recover from faults of the store without a restart."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.calls import TIMEOUT_S, request_for
from marquee.v1 import recommender_service_pb2 as pb
from toy.release import publish_toy


def folder_of(services: Any, release_id: str) -> Path:
    """Return the folder of a release in the store."""
    return Path(services.folder) / "store" / "releases" / release_id


async def until_reason(stub: Any, text: str) -> None:
    """Wait until GetStatus reports why the promoted release is not in service."""
    while True:
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
        if text in status.pending_release_reason + status.store_error:
            return
        await asyncio.sleep(0.02)


async def test_a_release_that_appears_after_its_promotion_is_served(
    stub: Any, services: Any
) -> None:
    """Until then, the status reports that the release does not exist."""
    late = await services.publish(1, promote=False)
    folder, aside = folder_of(services, late.release_id), services.folder / "aside"
    services.store.promote(late.release_id)
    folder.rename(aside)
    await until_reason(stub, "there is no release")
    aside.rename(folder)
    await services.until_full()
    assert services.gateway.releases.serving.release_id == late.release_id


@pytest.mark.parametrize("damage", ["missing", "changed", "unreadable", "symlink", "fifo"])
async def test_a_repaired_file_is_noticed(stub: Any, services: Any, damage: str) -> None:
    """The release is refused while a file is damaged, and served once it is repaired."""
    manifest = await services.publish(1, promote=False)
    victim = folder_of(services, manifest.release_id) / "data" / "users.npy"
    kept = services.folder / "kept.npy"
    services.store.promote(manifest.release_id)
    shutil.copyfile(victim, kept)
    victim.unlink()
    if damage == "changed":
        victim.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    elif damage == "unreadable":
        victim.mkdir()
    elif damage == "symlink":
        victim.symlink_to(kept)
    elif damage == "fifo":
        os.mkfifo(victim)
    await services.until(lambda: manifest.release_id in services.gateway.follower.refused)
    assert services.gateway.releases.serving.release_id == services.first.release_id
    if damage == "unreadable":
        victim.rmdir()
    elif damage != "missing":
        victim.unlink()
    shutil.copyfile(kept, victim)
    await services.until_full()
    assert services.gateway.releases.serving.release_id == manifest.release_id


async def test_polling_resumes_when_the_store_comes_back(stub: Any, services: Any) -> None:
    """While the store is away, the loaded release is served and the status reports the error."""
    store, away = services.folder / "store", services.folder / "away"
    store.rename(away)
    store.write_text("a file in its place")
    await until_reason(stub, "Not a directory")
    answer = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
    assert not answer.source.degraded
    store.unlink()
    away.rename(store)
    second = await services.publish(1)
    await services.until_full()
    assert services.gateway.releases.serving.release_id == second.release_id


async def test_a_damaged_pointer_is_reported_and_repaired(stub: Any, services: Any) -> None:
    """Promoting another release replaces the pointer."""
    (services.folder / "store" / "production").write_text("{")
    await until_reason(stub, "damaged file 'production'")
    second = await services.publish(1)
    await services.until_full()
    assert services.gateway.releases.serving.release_id == second.release_id


async def test_a_damaged_copy_is_replaced_from_the_store(services: Any) -> None:
    """NaN written over a server's own copy of a model does not persist."""
    name = "models/item_cf/vectors.npy"
    copy = services.folder / "cache" / services.first.release_id / name
    good = copy.read_bytes()
    copy.chmod(0o644)
    with copy.open("r+b") as stream:
        stream.seek(-64, 2)
        stream.write(np.full(16, np.nan, np.float32).tobytes())
    follower = services.scoring["cf"].follower
    before = follower.newest()
    await follower.scrub()
    assert copy.read_bytes() == good
    assert follower.damaged_copies == 1
    assert follower.newest() is not before
    assert follower.newest().release_id == services.first.release_id


async def test_a_copy_that_cannot_be_repaired_is_refused(services: Any, tmp_path: Path) -> None:
    """If the store is also damaged, the previous release is served."""
    second = await services.publish(1)
    await services.until_full()
    name = "models/item_cf/vectors.npy"
    for folder in (services.folder / "cache", services.folder / "store" / "releases"):
        path = folder / second.release_id / name
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    follower = services.scoring["cf"].follower
    await follower.scrub()
    assert second.release_id in follower.refused
    assert follower.newest().release_id == services.first.release_id


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["data"].update(rating_min=9),
        lambda raw: raw["data"].update(rating_max=1e999),
        lambda raw: raw["data"].update(rating_count=1),
        lambda raw: raw.update(files={}),
        lambda raw: raw["files"].pop("data/ratings.npy"),
    ],
)
async def test_an_invalid_manifest_is_refused(services: Any, change: Any) -> None:
    """Servers continue with their current release."""
    manifest = publish_toy(services.store, services.folder / "made1", 1)
    services.store.promote(manifest.release_id)
    path = folder_of(services, manifest.release_id) / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    await services.until(lambda: manifest.release_id in services.gateway.follower.refused)
    assert services.gateway.releases.serving.release_id == services.first.release_id
