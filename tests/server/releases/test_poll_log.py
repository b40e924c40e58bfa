"""What servers log about polls of the release store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from marquee_core.release.store import ReleaseStore
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.releases.poll_log import PollLog
from toy.release import publish_toy


class _Loaded:
    """A loaded release of a test's follower."""

    def __init__(self, release_id: str) -> None:
        self.release_id = release_id


async def test_a_store_without_a_promoted_release_is_logged_once(
    tmp_path: Path, log_lines: list[structlog.typing.EventDict]
) -> None:
    """A mistyped store is logged once at start, and a later promotion is logged as well."""
    store = ReleaseStore(str(tmp_path / "nope"))
    follower: ReleaseFollower[Any] = ReleaseFollower(
        store, _Loaded, 0.05, 2, poll_log=PollLog("cf")
    )
    await follower.poll()
    await follower.poll()
    release_id = publish_toy(store, tmp_path / "made").release_id
    store.promote(release_id)
    await follower.poll()
    events = [
        line for line in log_lines if line["event"] in ("no_release_promoted", "release_loaded")
    ]
    assert events == [
        {
            "event": "no_release_promoted",
            "log_level": "warning",
            "part": "cf",
            "store": str(tmp_path / "nope"),
        },
        {
            "event": "release_loaded",
            "log_level": "info",
            "part": "cf",
            "release_id": release_id,
        },
    ]


def test_only_unexpected_errors_of_polls_have_a_traceback(
    log_lines: list[structlog.typing.EventDict],
) -> None:
    """A store that is away is an expected error, unlike a defect."""
    PollLog().failed(PermissionError(13, "Permission denied", "store/production"))
    PollLog().failed(KeyError("x"))
    assert log_lines[0]["why"] == "[Errno 13] Permission denied: 'store/production'"
    assert "exc_info" not in log_lines[0]
    assert isinstance(log_lines[1]["exc_info"], KeyError)
