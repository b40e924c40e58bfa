"""The promotion gate allows good releases, and refuses worse and damaged ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee_core.arrays import Int64
from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import Manifest, hash_folder, new_release_id
from marquee_core.release.signing import Signer, TrustedKeys, generate_key
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_core.release.verdicts import recorded_verdicts
from marquee_services.promotion import promote
from marquee_trainer.commands.gate_submission import gate_for
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.split import last_split_per_user
from marquee_trainer.gate.config import GateConfig
from marquee_trainer.gate.gate import judge
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Model
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.publishing.release import Judge, publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.refit import refit_on_all_ratings
from marquee_trainer.training.train import train

ALL = (UserCF, ItemCF, EASE)


@pytest.fixture(scope="module")
def ratings() -> RatingsDataset:
    """A sample with something to learn."""
    return generate_sample(SampleConfig(users=300, items=200, ratings=15000), seed=1)


def subset(dataset: RatingsDataset, rows: Int64, stars: Any = None) -> RatingsDataset:
    """Return some rows of a data set, optionally with other ratings."""
    names = dataset.user_ids.ids(dataset.users[rows])
    items = dataset.catalogue.items.ids(dataset.items[rows])
    ratings = dataset.ratings[rows] if stars is None else stars
    times = dataset.timestamps[rows]
    part = RatingsDataset.of(names, items, ratings, times, {}, "part")
    return replace(part, scale=dataset.scale)


def publish(
    store: ReleaseStore,
    dataset: RatingsDataset,
    models: tuple[Callable[[], Model], ...] = ALL,
    judge: Judge | None = None,
) -> Manifest:
    """Train and publish a release."""
    split = last_split_per_user(dataset, dataset.file_order, 0.2)
    config = TrainingConfig.for_dataset(dataset)
    trained = train(dataset, split, models, config, Progress())
    trained = refit_on_all_ratings(dataset, split, trained, config, Progress())
    return publish_trained(store, dataset, split, trained, config, judge=judge)


@pytest.fixture(scope="module")
def trained_store(ratings: RatingsDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a good release in production, and a worse one with fewer models."""
    store = ReleaseStore(str(tmp_path_factory.mktemp("gate") / "store"))
    store.promote(publish(store, ratings).release_id)
    publish(store, ratings, (UserCF,))
    return Path(store.url)


@pytest.fixture
def store(trained_store: Path, tmp_path: Path) -> ReleaseStore:
    """A copy of that store."""
    shutil.copytree(trained_store, tmp_path / "store")
    return ReleaseStore(str(tmp_path / "store"))


def production_of(store: ReleaseStore) -> str:
    """Return the release in production."""
    production = store.production()
    assert production is not None
    return production.release_id


def altered(
    store: ReleaseStore, folder: Path, alter: Callable[[Path], None], release_id: str = ""
) -> str:
    """Publish a copy of a release, by default of production, with altered files."""
    source = store.manifest(release_id or production_of(store))
    shutil.copytree(Path(store.url) / "releases" / source.release_id, folder)
    (folder / "manifest.json").unlink()
    alter(folder)
    files = hash_folder(folder)
    now = datetime.now(UTC) + timedelta(seconds=1)
    manifest = replace(source, release_id=new_release_id(files, now), files=files)
    store.publish(folder, manifest)
    return manifest.release_id


def checks_with(verdict: Verdict, decision: Decision) -> set[str]:
    """Return the names of the checks with this decision."""
    return {check.name for check in verdict.checks if check.decision is decision}


def test_a_release_as_good_as_production_is_promoted(store: ReleaseStore, tmp_path: Path) -> None:
    """Equal models have the same evaluation for each user."""
    release_id = altered(store, tmp_path / "same", lambda _: None)
    verdict = judge(store, release_id)
    assert verdict.decision is Decision.PROMOTE, verdict.lines()
    (ranking,) = (check for check in verdict.checks if check.name == "ranking")
    assert ranking.figures["difference"] == 0.0
    assert ranking.figures["users"] > 200
    assert "verdict: promote" in verdict.lines()[-1]


def test_another_rating_scale_asks(store: ReleaseStore, ratings: RatingsDataset) -> None:
    """Errors in units of different scales are not compared, so the release is not refused."""
    wider = replace(ratings, ratings=20 * ratings.ratings, scale=RatingScale(0.0, 100.0, 20.0))
    verdict = judge(store, publish(store, wider).release_id)
    assert verdict.decision is Decision.ASK, verdict.lines()
    (comparison,) = (check for check in verdict.checks if check.name == "comparison")
    assert "errors on different rating scales are not compared" in comparison.text
    assert set(comparison.figures) == {"ndcg@10"}


def test_the_first_release_is_checked_without_a_comparison(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """The first release cannot be compared with another one."""
    release_id = production_of(store)
    first_store = ReleaseStore(str(tmp_path / "alone"))
    shutil.copytree(
        Path(store.url) / "releases" / release_id, tmp_path / "alone" / "releases" / release_id
    )
    verdict = judge(first_store, release_id)
    assert verdict.decision is Decision.PROMOTE
    assert verdict.production_id == ""
    assert {"finite", "spread of stars", "coverage", "served ranking"} <= checks_with(
        verdict, Decision.PROMOTE
    )


def test_a_worse_release_is_refused(store: ReleaseStore) -> None:
    """A paired test over users finds that it ranks worse on the same held-out ratings."""
    production = production_of(store)
    (worse,) = (m.release_id for m in store.manifests() if m.release_id != production)
    verdict = judge(store, worse)
    assert verdict.decision is Decision.REFUSE
    assert "ranking" in checks_with(verdict, Decision.REFUSE)
    assert "significantly worse" in verdict.reasons[0]
    # In the opposite direction, the better one passes.
    store.promote(worse)
    assert "better" in " ".join(judge(store, production).lines())
    assert judge(store, production).decision is Decision.PROMOTE


def change_blends(folder: Path, change: Callable[[str, Mapping[str, float]], Any]) -> None:
    """Rewrite the weights of all blends."""
    path = folder / "ensemble.json"
    rows = json.loads(path.read_text())
    for row in rows:
        for kind in ("rating", "ranking"):
            row[kind]["weights"] = change(f"{kind} {row['backends']}", row[kind]["weights"])
    path.write_text(json.dumps(rows))


@pytest.mark.parametrize(
    ("blend", "check"),
    [
        ("rating ['cf']", "served stars"),
        ("rating []", "served stars"),
        ("ranking ['cf']", "served ranking"),
        ("ranking []", "served ranking"),
    ],
)
def test_negated_weights_are_refused(
    store: ReleaseStore, tmp_path: Path, blend: str, check: str
) -> None:
    """This includes the blend that is used only while a service is down."""

    def negate(folder: Path) -> None:
        change_blends(
            folder,
            lambda name, weights: {
                model: -weight if name == blend else weight for model, weight in weights.items()
            },
        )

    verdict = judge(store, altered(store, tmp_path / "negated", negate))
    assert verdict.decision is Decision.REFUSE
    # A blend that cannot result from any ratings is not even loaded.
    assert checks_with(verdict, Decision.REFUSE) & {check, "release"}, verdict.lines()


def test_constant_predictions_are_refused(store: ReleaseStore, tmp_path: Path) -> None:
    """A constant may be close to many ratings, but is useless."""

    def flatten(folder: Path) -> None:
        change_blends(
            folder, lambda name, weights: {} if name.startswith("rating") else dict(weights)
        )

    verdict = judge(store, altered(store, tmp_path / "flat", flatten))
    assert checks_with(verdict, Decision.REFUSE) & {"spread of stars", "release"}, verdict.lines()


def test_identical_lists_for_all_users_are_refused(store: ReleaseStore, tmp_path: Path) -> None:
    """Popular items rank well enough for many users, but cover too little of the catalogue."""
    release_id = altered(store, tmp_path / "same", lambda _: None)
    verdict = judge(store, release_id, config=GateConfig(min_items=190, min_slots=1.0))
    assert checks_with(verdict, Decision.REFUSE) == {"coverage"}


def test_lists_that_change_completely_need_approval(store: ReleaseStore, tmp_path: Path) -> None:
    """The lists may nevertheless be better."""
    release_id = altered(store, tmp_path / "same", lambda _: None)
    verdict = judge(store, release_id, config=GateConfig(min_overlap=1.1))
    assert verdict.decision is Decision.ASK
    assert checks_with(verdict, Decision.ASK) == {"overlap"}


def test_a_damaged_release_is_refused(store: ReleaseStore, tmp_path: Path) -> None:
    """A release that a service cannot load never reaches it."""

    def damage(folder: Path) -> None:
        np.save(folder / "models" / "ease" / "weights.npy", np.zeros((3, 3), np.float32))

    verdict = judge(store, altered(store, tmp_path / "damaged", damage))
    assert verdict.decision is Decision.REFUSE
    assert "cannot be loaded" in verdict.reasons[0]
    with pytest.raises(ArtifactError, match="no release"):
        judge(store, "20000101T000000Z-00000000")


def test_the_verdict_is_part_of_the_signed_manifest(
    ratings: RatingsDataset, store: ReleaseStore, tmp_path: Path
) -> None:
    """The gate checks a release before publication, including whether the servers can load it."""
    public, _ = generate_key(tmp_path / "key")
    store.signer = signer = Signer.load(tmp_path / "key")
    production = production_of(store)
    published = publish(store, ratings, (UserCF,), gate_for(store, require_approval=True))
    trusting = ReleaseStore(store.url, trusted=TrustedKeys.load(public), signer=signer)
    ReleaseStore(store.url, signer=signer).promote(production)
    verdict = trusting.manifest(published.release_id).gate
    assert verdict is not None
    assert verdict == published.gate
    assert (verdict.decision, verdict.production_id) == (Decision.REFUSE, production)
    assert "servers" in checks_with(verdict, Decision.PROMOTE)
    assert "ranking" in checks_with(verdict, Decision.REFUSE)
    assert all(math.isfinite(x) for check in verdict.checks for x in check.figures.values())
    done = promote(trusting, published.release_id, verdict=verdict)
    assert done.production is None
    assert not recorded_verdicts(store.storage, published.release_id)


def test_releases_are_compared_on_ratings_that_both_held_out(
    ratings: RatingsDataset, store: ReleaseStore
) -> None:
    """A candidate is not refused for being tested on more ratings than production."""
    newest = last_split_per_user(ratings, ratings.file_order, 0.05)
    store.promote(publish(store, subset(ratings, newest.train)).release_id)
    verdict = judge(store, publish(store, ratings).release_id)
    (ranking,) = (check for check in verdict.checks if check.name == "ranking")
    assert ranking.figures["users"] >= GateConfig.min_users
    assert verdict.decision is Decision.PROMOTE, verdict.lines()


def test_corrupted_ratings_are_refused(ratings: RatingsDataset, store: ReleaseStore) -> None:
    """Ratings that were shuffled on import, or whose scale was reversed, are detected."""
    rows = np.arange(len(ratings))
    shuffled = np.random.default_rng(0).permutation(ratings.ratings)
    assert judge(store, publish(store, subset(ratings, rows, shuffled)).release_id).decision is (
        Decision.REFUSE
    )
    turned = (ratings.scale.low + ratings.scale.high - ratings.ratings).astype(np.float32)
    verdict = judge(store, publish(store, subset(ratings, rows, turned)).release_id)
    assert verdict.decision is not Decision.PROMOTE
    assert "distribution" in checks_with(verdict, Decision.ASK)


def test_a_release_with_half_of_the_ratings_is_refused(
    ratings: RatingsDataset, store: ReleaseStore
) -> None:
    """A truncated export must not replace a complete one."""
    half = np.flatnonzero(ratings.users < 140)
    verdict = judge(store, publish(store, subset(ratings, half)).release_id)
    assert "counts" in checks_with(verdict, Decision.REFUSE)


def test_the_worst_check_decides() -> None:
    """Approval is requested only if no check refuses."""
    checks = [Check(d.value, d, "because", {}) for d in Decision]
    assert Verdict.of("r", "", "now", checks[:1]).decision is Decision.PROMOTE
    assert Verdict.of("r", "", "now", checks[:2]).decision is Decision.ASK
    verdict = Verdict.of("r", "p", "now", checks)
    assert verdict.decision is Decision.REFUSE
    assert verdict.reasons == ["refuse: because", "ask: because"]
