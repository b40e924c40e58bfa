"""A derived release differs only in its ranking weights, and is served like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from marquee_core.errors import ArtifactError
from marquee_core.release.contents import ENSEMBLE
from marquee_core.release.derive import DERIVED, derive
from marquee_core.release.ensemble import Ensemble
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import BACKENDS, CF
from toy.release import publish_toy


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """An empty store."""
    return ReleaseStore(str(tmp_path / "store"))


def test_only_the_ranking_changes(store: ReleaseStore, tmp_path: Path) -> None:
    """Stars are predicted as before, and only the file of the ensemble changes."""
    source = publish_toy(store, tmp_path / "made")
    weights = {"ease": 0.5, "popularity": 2.0, "mf": 0.0}
    (tmp_path / "work").mkdir()
    folder, manifest = derive(store, source.release_id, weights, "a test", tmp_path / "work")
    store.publish(folder, manifest)
    found = store.manifest(manifest.release_id)
    assert found == manifest
    changed = {path for path, entry in found.files.items() if source.files[path] != entry}
    assert changed == {ENSEMBLE}
    assert source.files.keys() == found.files.keys()
    assert (found.data, found.models) == (source.data, source.models)
    derivation = found.evaluation[DERIVED]
    assert derivation == {
        "release_id": source.release_id,
        "ranking_weights": weights,
        "why": "a test",
    }
    before = Ensemble.load(tmp_path / "made" / ENSEMBLE, source)
    after = Ensemble.load(folder / ENSEMBLE, found)
    for backends, pair in after.by_backends.items():
        assert pair.rating == before.by_backends[backends].rating
    assert after.blends(BACKENDS).ranking.weights == {"ease": 0.5, "popularity": 2.0}
    assert after.blends([CF]).ranking.weights == {"ease": 0.5, "popularity": 2.0}
    assert after.blends([]).ranking.weights == {"popularity": 2.0}


def test_precomputed_pages_are_omitted(store: ReleaseStore, tmp_path: Path) -> None:
    """Gateways compute these pages on request, as they do for users without a page."""
    source = publish_toy(store, tmp_path / "made", backends=(), precomputed=True)
    (tmp_path / "work").mkdir()
    _, manifest = derive(store, source.release_id, {"popularity": 1.0}, "", tmp_path / "work")
    assert {path.split("/")[0] for path in source.files.keys() - manifest.files.keys()} == {
        "precomputed"
    }


@pytest.mark.parametrize(
    ("weights", "why"), [({"nothing": 1.0}, "no model nothing"), ({"ease": -1.0}, "negative")]
)
def test_invalid_weights_are_refused(
    store: ReleaseStore, tmp_path: Path, weights: dict[str, float], why: str
) -> None:
    """The error is raised before anything is published."""
    source = publish_toy(store, tmp_path / "made")
    (tmp_path / "work").mkdir()
    with pytest.raises(ArtifactError, match=why):
        derive(store, source.release_id, weights, "", tmp_path / "work")
