"""A release is tried in a process of its own, with limits of time and memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_services.server.settings import ServerSettings
from marquee_services.server.trial import Trial
from toy.release import publish_toy


def settings(tmp_path: Path, **changes: object) -> ServerSettings:
    """The settings of a server over a store in a folder."""
    return ServerSettings(
        store=str(tmp_path / "store"),
        cache_dir=str(tmp_path / "cache"),
        **changes,  # type: ignore[arg-type]
    )


async def test_a_good_release_passes_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    """The reason is what loading it in the server would say."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish_toy(store, tmp_path / "made", backends=())
    trial = Trial(GATEWAY, settings(tmp_path))
    await trial.run(manifest.release_id)
    copies = tmp_path / "cache" / manifest.release_id
    assert (copies / "data" / "users.npy").exists()
    victim = tmp_path / "store" / "releases" / manifest.release_id / "data" / "years.npy"
    np.save(victim, np.zeros(3))
    await trial.run(manifest.release_id)  # it has passed, and is not tried again
    for path in (copies / "data" / "years.npy", *copies.glob(".tried*")):
        path.unlink()
    with pytest.raises(ArtifactError, match=r"data/years\.npy"):
        await trial.run(manifest.release_id)


@pytest.mark.parametrize(
    ("limit", "message"),
    [({"trial_timeout": 0.1}, "0.1 s"), ({"trial_memory_mib": 1}, "1 MiB")],
)
async def test_a_trial_ends_at_its_limits(
    tmp_path: Path, limit: dict[str, float], message: str
) -> None:
    """The process is killed, and the release is refused."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish_toy(store, tmp_path / "made", backends=())
    with pytest.raises(ArtifactError, match=message):
        await Trial(GATEWAY, settings(tmp_path, **limit)).run(manifest.release_id)


async def test_a_cancelled_trial_leaves_no_process(tmp_path: Path) -> None:
    """A server that ends does not wait for it."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish_toy(store, tmp_path / "made", backends=())
    task = asyncio.create_task(Trial(GATEWAY, settings(tmp_path)).run(manifest.release_id))
    while not children():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


def children() -> list[str]:
    """The commands of this process's child processes that try a release."""
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            command = Path(f"/proc/{pid}/cmdline")
            if command.exists() and b"marquee_services.trial" in command.read_bytes():
                found.append(pid)
    return found
