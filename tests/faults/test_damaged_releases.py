"""Damage to the store does not affect a release that a server has loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from marquee import Client
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from toy.release import USERS, publish_toy

pytestmark = pytest.mark.alone


def test_a_damaged_volume_kills_no_server(tmp_path: Path) -> None:
    """Answers stay the same while the release's files are overwritten, truncated and deleted."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish_toy(store, tmp_path / "made", backends=(), precomputed=True)
    store.promote(manifest.release_id)
    options = {
        "store": store.url,
        "cache-dir": str(tmp_path / "cache"),
        "poll-interval": "0.1",
        "scrub-interval": "0.1",
    }
    gateway = ServiceProcess(GATEWAY, options, tmp_path / "log")
    try:
        gateway.wait_until_serving()
        with Client(gateway.address) as client:

            def pages() -> list[list[str]]:
                users = [f"u{user}" for user in range(USERS)]
                answers = [client.recommend(user, timeout=60) for user in users]
                assert not any(answer.source.degraded for answer in answers)
                return [[item.item_id for item in answer] for answer in answers]

            before = pages()
            files = [p for p in (tmp_path / "store" / "releases").rglob("*") if p.is_file()]
            for path in files:
                if path.suffix == ".npy":
                    with path.open("r+b") as stream:
                        stream.seek(128)
                        stream.write(np.full(16, np.nan, np.float32).tobytes())
            assert pages() == before
            for path in files:
                os.truncate(path, 0)
            assert pages() == before
            for path in files:
                path.unlink()
            assert pages() == before
        assert gateway.stop() == 0
    finally:
        gateway.kill()
