"""The trainer's commands: their flags and how they report errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from marquee_core.errors import ArtifactError
from marquee_core.release.lease import Lease
from marquee_trainer.commands import cli, train
from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.models.configurations import ConfigurationError

TINY = "sample:users=40,items=30,ratings=600"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of commands that name none."""
    monkeypatch.setenv("MARQUEE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[TrainSettings]:
    """The settings that `marquee train` was run with, instead of training."""
    received: list[TrainSettings] = []
    monkeypatch.setattr(train, "run_training", lambda settings, _: received.append(settings))
    return received


@pytest.mark.parametrize("flag", ["--precomputed-users", "--first-pages"])
def test_the_number_of_precomputed_users_has_an_older_flag(
    flag: str, settings: list[TrainSettings]
) -> None:
    """The former name is still accepted."""
    CliRunner().invoke(cli.train, [flag, "7"], catch_exceptions=False)
    assert settings[0].precomputed_users == 7


@pytest.mark.parametrize(
    "variable", ["MARQUEE_TRAIN_PRECOMPUTED_USERS", "MARQUEE_TRAIN_FIRST_PAGES"]
)
def test_the_number_of_precomputed_users_has_an_older_variable(
    variable: str, settings: list[TrainSettings]
) -> None:
    """The former name of the environment variable is still read."""
    CliRunner().invoke(cli.train, [], env={variable: "9"}, catch_exceptions=False)
    assert settings[0].precomputed_users == 9


@pytest.mark.parametrize(
    "error", [RatingsError, ConfigurationError, ArtifactError, PermissionError]
)
def test_an_expected_error_is_one_line(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is shown without a traceback, and the exit code is 1.

    Before it there is only the line that says what is loaded.
    """

    def fail(settings: TrainSettings, lease: Lease) -> None:
        raise error("line 3: not a rating")

    monkeypatch.setattr(train, "run_training", fail)
    result = CliRunner().invoke(cli.train, [])
    assert result.exit_code == 1
    assert result.stderr == "  loading ratings from sample\nError: line 3: not a rating\n"


@pytest.mark.parametrize("defect", [RuntimeError, ValueError, KeyError])
def test_a_defect_shows_its_traceback(
    defect: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that no input explains is not turned into a message."""

    def fail(settings: TrainSettings, lease: Lease) -> None:
        raise defect("impossible")

    monkeypatch.setattr(train, "run_training", fail)
    assert isinstance(CliRunner().invoke(cli.train, []).exception, defect)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--data", TINY, "--store", "nowhere://x"], "nowhere"),
        (["--data", TINY, "--config", "no-such-file.json"], "no-such-file.json"),
    ],
)
def test_what_cannot_be_opened_is_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ratings, stores and configuration files that do not exist end in one line."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.train, arguments)
    assert result.exit_code == 1
    *before, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert message in last
    assert all(line.startswith("  loading ratings from ") for line in before)


def test_settings_are_checked_where_they_are_made() -> None:
    """A settings object made in code is checked like one made from flags."""
    with pytest.raises(ValueError, match="precomputed_users"):
        TrainSettings(precomputed_users=-1)


def test_the_commands_are_light_to_import() -> None:
    """Their help needs neither NumPy nor TensorFlow."""
    code = (
        "import sys, marquee_trainer.commands.cli\n"
        "print({'numpy', 'tensorflow', 'scipy', 'grpc'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "set()\n"


def test_no_startup_lines_of_tensorflow_reach_the_user() -> None:
    """Importing what trains prints nothing on stderr."""
    code = "import marquee_trainer.models.neural.mf"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert result.stderr == ""
