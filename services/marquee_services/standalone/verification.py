"""Verifies a release before it is promoted, by serving it and checking the answers.

A standalone server loads the release in this process and answers every kind of request over a
socket. This module also checks what servers do not check themselves: that the precomputed pages
agree with those that the models compute, and that predictions are not all the same.
"""

from __future__ import annotations

import asyncio
import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import recommender_service_pb2_grpc, types_pb2
from marquee_core.arrays import Int64
from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import Manifest
from marquee_core.release.pointer import PROMOTE, Change, Production, ProductionPointer
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.scorer import LoadScorer
from marquee_services.gateway.releases.precomputed import PAGE_RANKING, candidates_of_pages
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.standalone.main import start
from marquee_services.standalone.settings import StandaloneSettings

# Of all users, and of those with a precomputed page, this many are checked.
_USERS = 24
_PAGE = 20
_TIMEOUT_S = 120.0
# The shares of a precomputed page's items that the computed page must contain, for each user and on
# average. Rounding may exchange items with almost equal scores.
_MIN_OVERLAP, _MIN_MEAN_OVERLAP = 0.5, 0.9
# The smallest standard deviation of predictions, as a share of the rating scale.
_MIN_SPREAD = 0.001


@dataclass(frozen=True)
class Verification:
    """The result of verifying a release.

    Attributes:
        release_id: The release.
        files: The number of files that match their digests.
        answers: The number of requests that were answered.
        precomputed: The number of precomputed pages that agree with the computed ones.
    """

    release_id: str
    files: int
    answers: int
    precomputed: int


def _spread(users: Int64, counts: Int64) -> list[int]:
    """Chooses users, from those with the fewest ratings to those with the most.

    Args:
        users: The users to choose from (int64, n).
        counts: The number of ratings of each user of the release (int64, users).
    """
    order = users[np.argsort(counts[users], kind="stable")]
    positions = np.unique(np.linspace(0, len(order) - 1, min(_USERS, len(order))).astype(int))
    chosen: list[int] = order[positions].tolist()
    return chosen


class _FixedPointer(ProductionPointer):
    """A production pointer that always names a given release."""

    def __init__(self, store: ReleaseStore, release_id: str) -> None:
        super().__init__(store.storage, store.replay_guard)
        self._release_id = release_id

    def read(self) -> Production:
        """Returns the release that is verified."""
        return Production(self._release_id, "", (), Change(0, PROMOTE, "", "", "", False))


async def verify_release(
    store: ReleaseStore, release_id: str, loaders: Mapping[str, Mapping[str, LoadScorer]]
) -> Verification:
    """Verifies the files of a release, that every server can load it, and its answers.

    Args:
        store: The release store.
        release_id: The release.
        loaders: For each backend, the functions that load its models, by the model's name.

    Raises:
        ArtifactError: A server would refuse the release, or one of its answers is wrong.
        OSError: The store cannot be read.
    """
    manifest = store.verify_files(release_id)
    store = copy.copy(store)
    store.pointer = _FixedPointer(store, release_id)
    with tempfile.TemporaryDirectory(prefix="marquee-verify-") as name:
        cache = Path(name) / "cache"
        dense_limit, candidates = _limits_of_pages(store, manifest, cache)
        settings = StandaloneSettings(
            listen=f"unix:{name}/socket",
            cache_dir=str(cache),
            dense_limit=dense_limit,
            candidates=candidates,
            precomputed_pages=False,
            backend_timeout=_TIMEOUT_S,
            answer_cache_mib=0,
            poll_interval=0.05,
            probe_interval=0.05,
            scrub_interval=0.0,
        )
        gateway, followers = await start(settings, loaders, store, with_experiments=False)
        following = [asyncio.create_task(follower.follow()) for follower in followers]
        try:
            while not gateway.releases.loaded or gateway.releases.pending_reason:
                for refused in (gateway.follower.refused, *(f.refused for f in followers)):
                    if release_id in refused:
                        raise ArtifactError(refused[release_id])
                await asyncio.sleep(0.01)
            async with grpc.aio.insecure_channel(settings.listen) as channel:
                checks = _Checks(channel, gateway.releases.loaded[0])
                await checks.run()
        finally:
            for task in following:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await gateway.stop(0.0)
            await gateway.follower.settle()
            for follower in followers:
                await follower.settle()
    return Verification(release_id, len(manifest.files), checks.answers, checks.precomputed)


def _limits_of_pages(store: ReleaseStore, manifest: Manifest, cache: Path) -> tuple[int, int]:
    """Returns the settings `dense_limit` and `candidates` that precomputed pages were ranked with.

    Raises:
        ArtifactError: The file that holds them is damaged.
    """
    limit = GatewaySettings.dense_limit
    folder = store.open(manifest, lambda path: path == PAGE_RANKING, cache)
    candidates = candidates_of_pages(folder, manifest)
    if not candidates:
        return limit, GatewaySettings.candidates
    return min(limit, manifest.data.item_count - 1), candidates


class _Checks:
    """Sends every kind of request to a server, and checks the answers."""

    def __init__(self, channel: grpc.aio.Channel, release: GatewayRelease) -> None:
        self._stub = recommender_service_pb2_grpc.RecommenderServiceStub(channel)
        self._release = release
        self._ranked_items = int(np.count_nonzero(release.rating_counts))
        self._stars: list[float] = []
        self.answers = 0
        self.precomputed = 0

    async def run(self) -> None:
        """Sends the requests.

        Raises:
            ArtifactError: A request fails, or an answer is wrong.
        """
        try:
            await self._known_users()
            await self._other_requests()
        except grpc.aio.AioRpcError as error:
            raise ArtifactError(f"a request fails: {error.details()}") from error
        self._check_spread()

    async def _known_users(self) -> None:
        release = self._release
        counts = np.diff(release.data.matrix.indptr)
        has_page = np.diff(release.precomputed_pages.offsets) > 0
        # Few users of a large release have a page, so they are also chosen separately.
        users = [
            *_spread(np.flatnonzero(counts), counts),
            *_spread(np.flatnonzero(has_page), counts),
        ]
        overlaps = []
        for user in dict.fromkeys(users):
            answer = await self._recommend(
                types_pb2.Subject(user_id=release.users.id(user)),
                may_be_empty=counts[user] >= self._ranked_items,
            )
            items = [item.item_id for item in answer.items]
            if set(release.catalogue.items.ids(release.data.matrix.seen(user))) & set(items):
                raise ArtifactError("an item is recommended to a user who has rated it")
            stored = release.precomputed_pages.get(user)
            if stored:
                page = [item.item_id for item in pb.RecommendResponse.FromString(stored).items]
                same = len(set(page) & set(items)) / len(page) if page else float(not items)
                overlaps.append(same)
        if overlaps and (
            min(overlaps) < _MIN_OVERLAP or float(np.mean(overlaps)) < _MIN_MEAN_OVERLAP
        ):
            raise ArtifactError(
                "the precomputed pages differ from those that the models compute: "
                f"{np.mean(overlaps):.0%} of all items agree, and {min(overlaps):.0%} of one page"
            )
        self.precomputed = len(overlaps)

    async def _other_requests(self) -> None:
        release = self._release
        ids = release.catalogue.items.ids(np.argsort(-release.rating_counts, kind="stable")[:40])
        low, high = release.manifest.data.rating_min, release.manifest.data.rating_max
        ratings = [
            types_pb2.Rating(item_id=name, stars=high if position % 2 else (low + high) / 2)
            for position, name in enumerate(ids[:10])
        ]
        subjects = [
            (
                types_pb2.Subject(ratings=ratings)
                if release.predicts_stars
                else types_pb2.Subject(user_id="\\x00 nobody")
            ),
            types_pb2.Subject(liked_item_ids=ids[:5]),
            types_pb2.Subject(user_id="\\x00 nobody", liked_item_ids=ids[:1]),
        ]
        # In a small catalogue, there may be nothing left to recommend.
        few = self._ranked_items <= len(ratings)
        for subject in subjects:
            first = await self._recommend(subject, may_be_empty=few)
            if first.next_page_token:
                await self._recommend(subject, page_token=first.next_page_token)
            for options in (
                {"include_reasons": True},
                {"diversity": 0.5, "include_metadata": True},
            ):
                await self._recommend(subject, options=options, may_be_empty=few)
            if release.predicts_stars:
                await self._predict(subject, ids)
        for name in release.models:
            await self._recommend(subjects[1], options={"model": name}, may_be_empty=True)
        await self._stub.SimilarItems(
            pb.SimilarItemsRequest(item_id=ids[0], page_size=_PAGE), timeout=_TIMEOUT_S
        )
        self.answers += 1

    async def _recommend(
        self,
        subject: types_pb2.Subject,
        page_token: str = "",
        options: Mapping[str, object] | None = None,
        may_be_empty: bool = False,
    ) -> pb.RecommendResponse:
        request = pb.RecommendRequest(
            subject=subject,
            page_size=_PAGE,
            page_token=page_token,
            options=pb.RecommendOptions(**(options or {})),  # type: ignore[arg-type]
        )
        answer = await self._stub.Recommend(request, timeout=_TIMEOUT_S)
        self.answers += 1
        if answer.source.degraded:
            raise ArtifactError("an answer is degraded although all models are loaded")
        if not answer.items and not may_be_empty and not page_token:
            raise ArtifactError("an answer is empty")
        if not all(math.isfinite(item.score) for item in answer.items):
            raise ArtifactError("a score is not finite")
        if self._release.predicts_stars:
            self._add_stars([item.predicted_stars for item in answer.items])
        return answer

    async def _predict(self, subject: types_pb2.Subject, item_ids: Sequence[str]) -> None:
        answer = await self._stub.PredictRatings(
            pb.PredictRatingsRequest(subject=subject, item_ids=item_ids), timeout=_TIMEOUT_S
        )
        self.answers += 1
        self._add_stars([p.stars for p in answer.predictions if p.HasField("stars")])

    def _add_stars(self, stars: Sequence[float]) -> None:
        data = self._release.manifest.data
        if not all(data.rating_min <= value <= data.rating_max for value in stars):
            raise ArtifactError("a prediction is outside the rating scale")
        self._stars += stars

    def _check_spread(self) -> None:
        data = self._release.manifest.data
        if not self._release.predicts_stars or len(self._stars) < _PAGE:
            return
        spread = float(np.std(self._stars))
        if spread < _MIN_SPREAD * (data.rating_max - data.rating_min):
            raise ArtifactError(
                f"the release predicts {np.mean(self._stars):.2f} stars for everything"
            )
