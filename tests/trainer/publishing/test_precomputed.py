"""Precomputed pages: whose pages they are, and that they equal the answers of a gateway."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polars as pl
import pytest

import marquee_trainer as trainer
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub as Stub
from marquee_core.arrays import Int32
from marquee_core.output import Output
from marquee_core.release.contents import open_release
from marquee_core.release.ensemble import BASELINE
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_core.tasks.task import Report
from marquee_services.gateway.releases.release import gateway_release
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.lists.blocks import block_users
from marquee_services.lists.computer import ListComputer
from marquee_services.lists.request import serving_loaders
from marquee_services.lists.user_list import UserError, UserList
from marquee_services.standalone.main import start
from marquee_services.standalone.settings import StandaloneSettings
from marquee_services.standalone.verification import verify_release
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split, random_split
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.model import Model
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.models.neural.mf import MF
from marquee_trainer.publishing import precomputed
from marquee_trainer.publishing.config import PrecomputeConfig, RetrievalConfig
from marquee_trainer.publishing.precomputed import precompute_pages
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.results import TrainingResult
from marquee_trainer.training.train import train
from toy.clock import Clock
from toy.release import toy_ensemble
from toy.waiting import WAIT_S, until

USERS = 10
# The number of users in a block, small enough for several blocks.
BLOCK = 16
# A limit below the number of items stands for a catalogue that is too large to be ranked whole.
LIMIT, CANDIDATES = 50, 20
ITEMS = 120


@pytest.fixture(scope="module")
def published(
    small_dataset: RatingsDataset,
    small_split: Split,
    small_trained: TrainingResult,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Manifest, Path]:
    """The manifest and the folder of a release without pages."""
    store = ReleaseStore(str(tmp_path_factory.mktemp("store")))
    manifest = publish_trained(
        *(store, small_dataset, small_split, small_trained, TrainingConfig()),
        precompute=PrecomputeConfig(users=0),
    )
    return manifest, Path(store.url) / "releases" / manifest.release_id


def test_the_most_active_users_have_a_page(
    published: tuple[Manifest, Path], small_trained: TrainingResult
) -> None:
    """As many users as configured have a page, and no other user has more ratings."""
    reported: list[tuple[int, int]] = []
    config = PrecomputeConfig(users=USERS)
    pages = precompute_pages(*published, config, lambda *counts: reported.append(counts)).pages
    counts = np.diff(small_trained.data.matrix.indptr)
    has_page = np.array([bool(pages.get(user)) for user in range(len(counts))])
    assert has_page.sum() == USERS
    assert counts[has_page].min() >= counts[~has_page].max()
    assert reported[-1] == (USERS, USERS)


def test_an_exception_while_reporting_ends_precomputing(published: tuple[Manifest, Path]) -> None:
    """So does the interrupt that a progress bar or Ctrl-C raises, without waiting for the rest."""
    reported: list[int] = []

    def interrupt(done: int, _: int) -> None:
        reported.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute_pages(*published, PrecomputeConfig(dense_limit=LIMIT), interrupt)
    assert len(reported) == 1


def test_a_time_limit_leaves_out_the_least_active_users(
    published: tuple[Manifest, Path],
    small_trained: TrainingResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three blocks of ten seconds fit into 35 seconds, and a fourth would not."""
    monkeypatch.setattr(precomputed, "_BLOCK_USERS", BLOCK)
    clock = Clock(1000.0)

    def work(_: int, __: int) -> None:
        clock.now += 10.0

    computed = precompute_pages(*published, PrecomputeConfig(seconds=35.0), work, clock)
    counts = np.diff(small_trained.data.matrix.indptr)
    has_page = np.array([bool(computed.pages.get(user)) for user in range(len(counts))])
    assert computed.users == has_page.sum() == 3 * BLOCK
    assert computed.wanted == np.count_nonzero(counts)
    assert counts[has_page].min() >= counts[~has_page].max()
    none = precompute_pages(*published, PrecomputeConfig(seconds=0.0), work, clock)
    assert none.users == 0
    assert not len(none.pages.answers)


def test_the_manifest_has_the_pages_that_the_time_limit_left_out(
    small_dataset: RatingsDataset,
    small_split: Split,
    small_trained: TrainingResult,
    tmp_path: Path,
) -> None:
    """Without time there are no pages, and without a limit there is no such entry."""
    store = ReleaseStore(str(tmp_path))
    for seconds, entry in ((0.0, {"users": 0, "wanted": USERS}), (None, None)):
        manifest = publish_trained(
            *(store, small_dataset, small_split, small_trained, TrainingConfig()),
            precompute=PrecomputeConfig(users=USERS, seconds=seconds),
        )
        stored = store.manifest(manifest.release_id)
        assert stored.evaluation.get("first_pages") == entry


def test_only_the_lists_of_a_block_are_in_memory(
    published: tuple[Manifest, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists are freed before those of the next block, so memory does not grow with the users."""
    monkeypatch.setattr(precomputed, "_BLOCK_USERS", BLOCK)
    compute = ListComputer.of_users
    lists: list[weakref.ref[UserList | UserError]] = []
    alive: list[int] = []

    def watched(self: ListComputer, users: Int32, report: Report) -> list[UserList | UserError]:
        alive.append(sum(one() is not None for one in lists))
        found = compute(self, users, report)
        lists.extend(map(weakref.ref, found))
        assert len(found) <= BLOCK
        return found

    monkeypatch.setattr(ListComputer, "of_users", watched)
    computed = precompute_pages(*published, PrecomputeConfig())
    assert len(lists) == computed.users > 3 * BLOCK
    # The last list of the block before is still the loop's variable.
    assert max(alive) <= 1


@pytest.mark.parametrize(("items", "users"), [(100, 256), (20_000, 200), (8_000_000, 1)])
def test_the_scores_of_a_block_have_a_limit(items: int, users: int) -> None:
    """The larger the catalogue, the fewer users are ranked together."""
    assert block_users(items) == users


async def test_pages_can_be_precomputed_within_an_event_loop(
    published: tuple[Manifest, Path],
) -> None:
    """Notebooks run one; pages of candidates are computed in another."""
    config = PrecomputeConfig(users=USERS, dense_limit=LIMIT, candidates=CANDIDATES)
    within = precompute_pages(*published, config).pages
    without = (await asyncio.to_thread(precompute_pages, *published, config)).pages
    assert within.answers.any()
    np.testing.assert_array_equal(within.answers, without.answers)


def test_a_page_ranks_unseen_items_with_the_ensemble(
    published: tuple[Manifest, Path],
    small_dataset: RatingsDataset,
    small_trained: TrainingResult,
) -> None:
    """The items and scores are those of the ranking blend of the trained models, best first."""
    data = small_trained.data
    user = int(np.argmax(np.diff(data.matrix.indptr)))
    pages = precompute_pages(*published, PrecomputeConfig(users=USERS)).pages
    page = pb.RecommendResponse.FromString(pages.get(user))
    models = (*small_trained.models, *fitted_baselines(data))
    scores = {m.name: m.scorer.score(data.matrix.profiles([user]))[0] for m in models}
    assert BASELINE in scores
    blends = small_trained.ensemble.blends(["cf"])
    expected = blends.ranking.apply(scores)
    expected[data.matrix.seen(user)] = -np.inf
    best = np.sort(expected)[::-1][: len(page.items)]
    assert len(page.items) == min(DEFAULT_PAGE_SIZE, int(np.isfinite(expected).sum()))
    assert [item.score for item in page.items] == pytest.approx(best.tolist(), rel=1e-5)
    places = [small_dataset.catalogue.items.index(item.item_id) for item in page.items]
    assert expected[places] == pytest.approx(best, rel=1e-5)


@dataclass(frozen=True)
class Case:
    """A kind of release whose pages are compared with answers.

    Attributes:
        makers: Create the models.
        implicit: Whether the feedback is implicit.
        retrieval: How models retrieve candidates.
        blends_all: Whether every model ranks, instead of those that training chooses.
    """

    makers: Sequence[Callable[[], Model]]
    implicit: bool = False
    retrieval: str = "exact"
    blends_all: bool = False


CASES = {
    "one backend": Case((UserCF, ItemCF, EASE, IALS)),
    "approximate index": Case((EASE, IALS), retrieval="ann", blends_all=True),
    "two backends rank": Case((ItemCF, EASE, lambda: MF().with_epochs(2)), blends_all=True),
    "implicit feedback": Case((EASE, IALS), implicit=True),
}


def sample(implicit: bool) -> RatingsDataset:
    """Make ratings, or only which items users chose."""
    dataset = generate_sample(SampleConfig(users=60, items=ITEMS, ratings=2400), seed=3)
    if not implicit:
        return dataset
    found: RatingsDataset = trainer.from_frame(
        trainer.to_frame(dataset).select("user", "item").with_columns(count=pl.lit(1))
    )
    return found


def publish(case: Case, store: ReleaseStore, precompute: PrecomputeConfig) -> Manifest:
    """Train the models of a case, and publish and promote them."""
    dataset = sample(case.implicit)
    split = random_split(dataset.file_order, 0.2, 0)
    config = TrainingConfig.for_dataset(dataset)
    trained = train(dataset, split, case.makers, config, Progress())
    if case.blends_all:
        models: dict[str, dict[str, Output]] = {}
        for model in trained.models:
            models.setdefault(model.backend, {})[model.name] = model.scorer.output
        trained = replace(trained, ensemble=toy_ensemble(sorted(models), models))
    manifest = publish_trained(
        *(store, dataset, split, trained, config),
        RetrievalConfig(case.retrieval, max_probe_share=1.0),
        precompute,
    )
    store.promote(manifest.release_id)
    return manifest


@asynccontextmanager
async def serve(store: ReleaseStore, folder: Path, limit: int) -> AsyncIterator[Any]:
    """Serve a release with all backends but without its pages, and yield a stub for the gateway.

    Args:
        store: The store.
        folder: A folder for the socket and the cache.
        limit: The gateway's dense limit.
    """
    settings = StandaloneSettings(
        listen=f"unix:{folder}/socket",
        cache_dir=str(folder / "cache"),
        dense_limit=limit,
        candidates=CANDIDATES,
        precomputed_pages=False,
        answer_cache_mib=0,
        backend_timeout=WAIT_S,
        poll_interval=0.05,
        probe_interval=0.05,
    )
    gateway, followers = await start(settings, serving_loaders(), store)
    following = [asyncio.create_task(follower.follow()) for follower in followers]
    try:
        await until(lambda: gateway.releases.loaded and not gateway.releases.pending_reason)
        async with grpc.aio.insecure_channel(settings.listen) as channel:
            yield Stub(channel)
    finally:
        for task in following:
            task.cancel()
        await gateway.stop(0.0)


@pytest.mark.parametrize("limit", [LIMIT, ITEMS], ids=["large", "small"])
@pytest.mark.parametrize("name", CASES)
async def test_pages_equal_the_answers_of_a_gateway(name: str, limit: int, tmp_path: Path) -> None:
    """Items, order, scores, stars and proposers of every page are equal, in all catalogues."""
    store, case = ReleaseStore(str(tmp_path / "store")), CASES[name]
    manifest = await asyncio.to_thread(
        publish, case, store, PrecomputeConfig(dense_limit=limit, candidates=CANDIDATES)
    )
    kinds = {model.retrieval["kind"] for model in manifest.models}
    assert case.retrieval in kinds
    opened, names = open_release(store, manifest.release_id, GATEWAY, tmp_path / "opened")
    release = gateway_release(opened, names)
    rankers = release.ensemble.by_backends[release.backends].ranking.weights
    backends = {release.models[name].backend for name in rankers} - {GATEWAY}
    assert len(backends) == (2 if name == "two backends rank" else 1)
    pages = release.precomputed_pages
    assert pages.candidates == (CANDIDATES if limit < ITEMS else 0)
    compared = 0
    async with serve(store, tmp_path, limit) as stub:
        for user in np.flatnonzero(np.diff(release.data.matrix.indptr)).tolist():
            subject = types_pb2.Subject(user_id=release.users.id(user))
            answer = await stub.Recommend(pb.RecommendRequest(subject=subject), timeout=WAIT_S)
            assert not answer.source.degraded
            stored = pages.get(user)
            assert bool(stored) == (not answer.source.abstaining_models)
            if not stored:
                continue
            page = pb.RecommendResponse.FromString(stored)
            assert [item.item_id for item in page.items] == [item.item_id for item in answer.items]
            assert page.subject_kind == answer.subject_kind
            for found, expected in zip(page.items, answer.items, strict=True):
                assert found.score == pytest.approx(expected.score, rel=1e-5, abs=1e-5)
                assert found.predicted_stars == pytest.approx(expected.predicted_stars, rel=1e-5)
                assert list(found.proposed_by) == list(expected.proposed_by)
            compared += 1
    assert compared > USERS
    verification = await verify_release(store, manifest.release_id, serving_loaders())
    assert verification.precomputed > USERS
