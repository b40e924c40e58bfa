"""The trainer's README: its examples run, and its comparison names its source."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from locations import PROJECT
from marquee_trainer.commands.cli import data
from marquee_trainer.models.model import Training

README = (PROJECT / "trainer/README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


BLOCKS = blocks("python")


def test_the_example_adds_a_model_that_is_better_than_popularity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks run one after another, and the scorer that they define can be saved and loaded."""
    (tmp_path / "readme_example.py").write_text("\n".join(BLOCKS))
    monkeypatch.syspath_prepend(tmp_path)
    example = importlib.import_module("readme_example")
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert list(printed) == ["popularity", "cooccurrence", "ensemble"]
    assert float(printed["popularity"]) < float(printed["cooccurrence"])
    data = example.trained.data
    model = example.Cooccurrence()
    model.fit(Training(data))
    model.save(tmp_path)
    profiles = data.matrix.profiles(np.arange(5, dtype=np.int32))
    expected = model.scorer.score(profiles)
    assert np.isfinite(expected).all()
    loaded = example.CooccurrenceScorer.load(tmp_path, data)
    assert loaded.config == model.config
    assert np.array_equal(loaded.score(profiles), expected)
    assert np.array_equal(loaded.score(profiles, np.array([3, 1])), expected[:, [3, 1]])


def test_the_model_of_the_example_is_short() -> None:
    """The model takes at most 60 lines, and a second block evaluates it."""
    assert len(BLOCKS) == 2
    assert len(BLOCKS[0].splitlines()) <= 60


def test_the_data_check_of_the_example_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the example are read as the document shows."""
    tables, (shown,) = blocks("csv"), blocks("text")
    command = re.search(r"^marquee (data check .*)$", README, re.MULTILINE)
    assert command
    arguments = shlex.split(command[1])[1:]
    files = [argument for argument in arguments if argument.endswith(".csv")]
    monkeypatch.chdir(tmp_path)
    for name, content in zip(files, tables, strict=True):
        Path(name).write_text(content)
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith(shown)


def test_the_comparison_with_the_write_up_names_its_source() -> None:
    """The published figures and their source are listed."""
    assert '"Movie Recommender System"' in README
    for figure in ("0.6882", "1.0906", "2.2444", "4.4829"):
        assert figure in README


def test_every_package_and_file_that_the_readme_names_exists() -> None:
    """The table of packages and the list of files to edit match the tree."""
    layout = re.findall(r"^\| `(\w+)` \| [^|]+ \| `(\w+\.py)` \|$", README, re.MULTILINE)
    packages = PROJECT / "trainer/marquee_trainer"
    for package, module in layout:
        assert (packages / package / module).is_file(), (package, module)
    assert {package for package, _ in layout} == {
        path.parent.name for path in packages.glob("*/__init__.py")
    }
    paths = re.findall(r"`((?:services|tests|trainer)/[\w/]+\.py)`", README)
    assert paths
    for path in paths:
        # The reader creates the files of the example.
        assert (PROJECT / path).is_file() or "cooccurrence" in path, path
