"""A release is verified before its promotion, and one that should not be served is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.experiments.experiment import Arm
from marquee_core.experiments.store import ExperimentStore
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import BACKENDS
from marquee_services.standalone.verification import verify_release
from toy.release import ITEMS, TOY_LOADERS, publish_toy
from toy.rewriting import rewrite


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """An empty store."""
    return ReleaseStore(str(tmp_path / "store"))


async def test_a_good_release_passes_without_being_promoted(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """All models answer all kinds of requests, and the store is not changed."""
    manifest = publish_toy(store, tmp_path / "made")
    found = await verify_release(store, manifest.release_id, TOY_LOADERS)
    assert found.files == len(manifest.files)
    assert found.answers > 40
    assert store.production() is None


async def test_a_running_experiment_does_not_affect_verification(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """Otherwise, arms would answer for most users and be compared with the release's ratings."""
    arms = []
    for seed, name in enumerate(("control", "candidate"), 1):
        arm = publish_toy(store, tmp_path / name, seed).release_id
        arms.append(Arm(name, arm, 50.0))
    store.promote(arms[0].release_id)
    ExperimentStore(store).create("running", arms)
    manifest = publish_toy(store, tmp_path / "made")
    found = await verify_release(store, manifest.release_id, TOY_LOADERS)
    assert found.release_id == manifest.release_id


@pytest.mark.parametrize("precomputed", [False, True])
async def test_a_user_may_have_rated_everything(
    store: ReleaseStore, tmp_path: Path, precomputed: bool
) -> None:
    """Then nothing is left to recommend, which is not an error of the release or its pages."""
    manifest = publish_toy(
        store,
        tmp_path / "made",
        backends=() if precomputed else BACKENDS,
        recorded={("u0", f"i{n}"): 1.0 + n % 5 for n in range(ITEMS)},
        precomputed=precomputed,
    )
    loaders = {} if precomputed else TOY_LOADERS
    assert (await verify_release(store, manifest.release_id, loaders)).answers > 0


async def test_precomputed_pages_agree_with_computed_ones(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """A release without backends has pages that its gateway can compute."""
    manifest = publish_toy(store, tmp_path / "made", backends=(), precomputed=True)
    assert (await verify_release(store, manifest.release_id, {})).precomputed > 20


def write(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return a change of an array of a release."""

    def apply(folder: Path) -> None:
        array = np.load(folder / name)
        np.save(folder / name, change(array))

    return apply


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Return a change of a JSON file of a release."""

    def apply(folder: Path) -> None:
        raw = json.loads((folder / name).read_text())
        change(raw)
        (folder / name).write_text(json.dumps(raw))

    return apply


def negate(kind: str) -> Callable[[Any], None]:
    """Return a change that negates the weights of all blends of a kind."""

    def change(rows: Any) -> None:
        for row in rows:
            blend = row[kind]
            blend["weights"] = {name: -weight for name, weight in blend["weights"].items()}

    return change


def huge_header(folder: Path) -> None:
    """Write an array file that declares more memory than there is."""
    path = folder / "baseline" / "item_bias.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }"
    header = header.ljust(118 - 1) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 8)


def long_title(folder: Path) -> None:
    """Write a title of one mebibyte."""
    offsets = np.load(folder / "data" / "title_offsets.npy")
    text = np.load(folder / "data" / "title_text.npy")
    offsets[-1] += 1 << 20
    np.save(folder / "data" / "title_offsets.npy", offsets)
    np.save(
        folder / "data" / "title_text.npy", np.concatenate([text, np.full(1 << 20, 65, np.uint8)])
    )


def rotated_pages(folder: Path) -> None:
    """Assign each user the page of another one."""
    name = folder / "precomputed"
    offsets, text = np.load(name / "offsets.npy"), np.load(name / "answers.npy")
    pages = [text[a:b] for a, b in itertools.pairwise(offsets)]
    pages = [*pages[1:], pages[0]]
    np.save(name / "answers.npy", np.concatenate(pages))
    np.save(name / "offsets.npy", np.cumsum([0, *map(len, pages)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("ensemble.json", negate("rating")), "predicts"),
        (edit("ensemble.json", negate("ranking")), "negative weight"),
        (write("models/mf/vectors.npy", lambda a: a * np.float32(np.nan)), "not finite"),
        (write("baseline/item_bias.npy", lambda a: a + np.float32(np.inf)), "not finite"),
        (write("baseline/scalars.npy", lambda a: a * np.nan), "not finite"),
        (write("data/ratings.npy", lambda a: a * 3), "outside the scale"),
        (write("data/rated_items.npy", lambda a: a + 1000), "does not exist"),
        (write("data/indptr.npy", lambda a: a[::-1].copy()), "row pointers"),
        (write("data/users.npy", lambda a: a[::-1].copy()), "sorted"),
        (write("data/users.npy", lambda a: a.astype(object)), "dtype"),
        (huge_header, "shape"),
        (long_title, "a title has more than"),
        (edit("manifest.json", lambda raw: raw["data"].update(rating_min=9)), "not possible"),
        (edit("manifest.json", lambda raw: raw["data"].update(rating_max=float("nan"))), "NaN"),
        (edit("manifest.json", lambda raw: raw["data"].update(user_count=True)), "user_count"),
        (
            edit("manifest.json", lambda raw: raw["models"][0].update(name="../x")),
            "not a valid model name",
        ),
    ],
)
async def test_an_implausible_release_is_refused(
    store: ReleaseStore, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    """The release is refused although the digests of its files match."""
    manifest = publish_toy(store, tmp_path / "made")
    rewrite(store, manifest, change)
    with pytest.raises(ArtifactError, match=message):
        await verify_release(store, manifest.release_id, TOY_LOADERS)


@pytest.mark.parametrize("other", [rotated_pages])
async def test_precomputed_pages_of_other_users_are_refused(
    store: ReleaseStore, tmp_path: Path, other: Callable[[Path], None]
) -> None:
    """A server detects such pages by the items that the user has rated."""
    manifest = publish_toy(store, tmp_path / "made", backends=(), precomputed=True)
    rewrite(store, manifest, other)
    with pytest.raises(ArtifactError, match="another user"):
        await verify_release(store, manifest.release_id, {})


async def test_precomputed_pages_that_differ_from_computed_ones_are_refused(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """Here, the pages were computed before the weights were changed."""
    manifest = publish_toy(store, tmp_path / "made", backends=(), precomputed=True)
    worst_first = write("baseline/item_bias.npy", lambda a: (-5 * a).astype(np.float32))
    rewrite(store, manifest, worst_first)
    with pytest.raises(ArtifactError, match="differ from those that the models compute"):
        await verify_release(store, manifest.release_id, {})
