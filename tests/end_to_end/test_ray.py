"""Training and offline lists on a Ray cluster of this machine, and in processes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from marquee.cli import main
from marquee_core.release.store import ReleaseStore

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra `ray`"
)


def invoke(*arguments: str) -> str:
    """Run a command, and return what it writes to stderr."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stderr


def train(store: Path, *options: str) -> str:
    """Train three models on a small sample, one of them with TensorFlow."""
    data = "sample:users=120,items=80,ratings=4000"
    return invoke(
        "train",
        *("--data", data, "--store", str(store), "--models", "ease,item_cf,mf"),
        *options,
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ReleaseStore:
    """A release that was trained in one process."""
    folder = tmp_path_factory.mktemp("reference") / "store"
    train(folder)
    return ReleaseStore(str(folder))


@pytest.mark.parametrize(
    "options", [("--processes", "2"), pytest.param(("--ray", "local"), marks=needs_ray)]
)
def test_models_may_be_fitted_in_other_processes(
    reference: ReleaseStore, tmp_path: Path, options: tuple[str, str]
) -> None:
    """The models and metrics equal those of one process, up to the effects of threads."""
    text = train(tmp_path / "store", *options)
    assert "(9 of 9 fits)" in text
    store = ReleaseStore(str(tmp_path / "store"))
    (found,), (expected,) = store.manifests(), reference.manifests()
    assert [model.name for model in found.models] == [model.name for model in expected.models]
    for actual, wanted in zip(found.models, expected.models, strict=True):
        assert actual.metrics == pytest.approx(dict(wanted.metrics), abs=0.02)
    assert not (tmp_path / "store" / "checkpoints").exists()


@needs_ray
def test_lists_may_be_computed_by_a_cluster(reference: ReleaseStore, tmp_path: Path) -> None:
    """The lists are byte-identical to those that processes of this machine write."""
    options = ("batch", "--store", reference.url, "--part-users", "50", "--out")
    invoke(*options, str(tmp_path / "here"), "--processes", "1")
    invoke(*options, str(tmp_path / "there"), "--ray", "local")
    parts = sorted((tmp_path / "here").iterdir())
    assert len(parts) == 3
    for part in parts:
        assert (tmp_path / "there" / part.name).read_bytes() == part.read_bytes()
