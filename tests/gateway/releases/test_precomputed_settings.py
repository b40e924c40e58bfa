"""Precomputed pages are used only by gateways that rank as the pages were ranked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import grpc
import numpy as np
import pytest
import structlog

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.errors import ArtifactError
from marquee_core.release.contents import PRECOMPUTED
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.releases.precomputed import PAGE_RANKING, PrecomputedPages
from marquee_services.standalone.main import start
from marquee_services.standalone.settings import StandaloneSettings
from marquee_services.standalone.verification import verify_release
from toy.release import ITEMS, USERS, publish_toy
from toy.rewriting import rewrite
from toy.waiting import WAIT_S, until

# Scores of stored pages differ from computed ones by this much, so that tests can tell them apart.
SHIFT = 1_000.0


def shifted(page: bytes) -> bytes:
    """Return a page with higher scores."""
    response = pb.RecommendResponse.FromString(page)
    for item in response.items:
        item.score += SHIFT
    return response.SerializeToString()


def release_with_pages(
    store: ReleaseStore, folder: Path, candidates: int, users: Collection[int] = range(USERS)
) -> Manifest:
    """Publish and promote a release with pages of some users.

    Args:
        store: The store.
        folder: An empty or missing folder for the files.
        candidates: The number of candidates among which the pages were ranked; 0 for all items.
        users: The users with a page.
    """
    manifest = publish_toy(store, folder, backends=(), precomputed=True)

    def change(release: Path) -> None:
        answers, offsets = (
            np.load(release / PRECOMPUTED / f"{name}.npy") for name in ("answers", "offsets")
        )
        pages = PrecomputedPages(answers, offsets)
        own = [shifted(pages.get(user)) if user in users else b"" for user in range(USERS)]
        PrecomputedPages.of(own, candidates).save(release)

    rewrite(store, manifest, change)
    store.promote(manifest.release_id)
    return manifest


@pytest.mark.parametrize(
    ("ranked", "dense_limit", "candidates", "used"),
    [
        pytest.param(0, ITEMS, 60, True, id="complete pages, complete ranking"),
        pytest.param(0, ITEMS - 1, 60, False, id="complete pages, candidates"),
        pytest.param(60, ITEMS - 1, 60, True, id="pages of candidates, as many candidates"),
        pytest.param(60, ITEMS - 1, 40, False, id="pages of candidates, fewer candidates"),
        pytest.param(60, ITEMS, 60, False, id="pages of candidates, complete ranking"),
    ],
)
async def test_pages_are_used_if_the_gateway_ranks_in_the_same_way(
    ranked: int,
    dense_limit: int,
    candidates: int,
    used: bool,
    tmp_path: Path,
    log_lines: list[structlog.typing.EventDict],
) -> None:
    """Otherwise, further pages would not continue the first one. The difference is logged."""
    store = ReleaseStore(str(tmp_path / "store"))
    release_with_pages(store, tmp_path / "made", ranked)
    settings = StandaloneSettings(
        listen=f"unix:{tmp_path}/socket",
        cache_dir=str(tmp_path / "cache"),
        dense_limit=dense_limit,
        candidates=candidates,
        poll_interval=0.05,
    )
    gateway, _ = await start(settings, {}, store)
    try:
        await until(lambda: gateway.releases.loaded and not gateway.releases.pending_reason)
        async with grpc.aio.insecure_channel(settings.listen) as channel:
            stub = RecommenderServiceStub(channel)
            for user in ("u1", "u2"):
                request = pb.RecommendRequest(subject=types_pb2.Subject(user_id=user))
                answer = await stub.Recommend(request, timeout=WAIT_S)
                assert len(answer.items) == 20
                assert all((item.score > SHIFT / 2) == used for item in answer.items)
    finally:
        await gateway.stop(0.0)
    events = [line["event"] for line in log_lines]
    assert events.count("precomputed_pages_not_used") == (not used)


@pytest.mark.parametrize("content", ["{}", "[]", '{"candidates": 19}', '{"candidates": true}', "{"])
async def test_a_damaged_number_of_candidates_is_refused(content: str, tmp_path: Path) -> None:
    """A server would otherwise take the pages for those of other settings."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = release_with_pages(store, tmp_path / "made", 60)

    def damage(folder: Path) -> None:
        (folder / PAGE_RANKING).write_text(content)

    rewrite(store, manifest, damage)
    with pytest.raises(ArtifactError, match=PAGE_RANKING):
        await verify_release(store, manifest.release_id, {})


async def test_few_pages_of_a_large_catalogue_are_verified(tmp_path: Path) -> None:
    """They are compared with pages that are computed from as many candidates."""
    store, users = ReleaseStore(str(tmp_path / "store")), (3, 4, 5, 21, 22, 23)
    manifest = release_with_pages(store, tmp_path / "made", 60, users)
    assert (await verify_release(store, manifest.release_id, {})).precomputed == len(users)
