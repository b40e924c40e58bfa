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
from toy.waiting import PROCESS_S

TINY = "sample:users=40,items=30,ratings=600"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default store of the commands."""
    monkeypatch.setenv("MARQUEE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[TrainSettings]:
    """The settings that `marquee train` was called with, instead of training."""
    received: list[TrainSettings] = []
    monkeypatch.setattr(train, "run_training", lambda settings, _: received.append(settings))
    return received


@pytest.mark.parametrize("flag", ["--precomputed-users", "--first-pages"])
def test_the_number_of_precomputed_users_has_an_older_flag(
    flag: str, settings: list[TrainSettings]
) -> None:
    """The former flag is still accepted."""
    CliRunner().invoke(cli.train, [flag, "7"], catch_exceptions=False)
    assert settings[0].precomputed_users == 7


@pytest.mark.parametrize(
    "variable", ["MARQUEE_TRAIN_PRECOMPUTED_USERS", "MARQUEE_TRAIN_FIRST_PAGES"]
)
def test_the_number_of_precomputed_users_has_an_older_variable(
    variable: str, settings: list[TrainSettings]
) -> None:
    """The former environment variable is still read."""
    CliRunner().invoke(cli.train, [], env={variable: "9"}, catch_exceptions=False)
    assert settings[0].precomputed_users == 9


@pytest.mark.parametrize(
    "error", [RatingsError, ConfigurationError, ArtifactError, PermissionError]
)
def test_an_expected_error_is_one_line(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is shown without a traceback, and the exit code is 1.

    It is preceded only by the line that says what is loaded.
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
def test_missing_files_are_reported(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing ratings, stores and configuration files are reported in one line."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.train, arguments)
    assert result.exit_code == 1
    *before, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert message in last
    assert all(line.startswith("  loading ratings from ") for line in before)


def test_settings_are_validated_when_they_are_created() -> None:
    """A settings object created in code is validated like one created from flags."""
    with pytest.raises(ValueError, match="precomputed_users"):
        TrainSettings(precomputed_users=-1)


def test_importing_the_commands_imports_no_heavy_packages() -> None:
    """Showing help needs neither NumPy nor TensorFlow."""
    code = (
        "import sys, marquee_trainer.commands.cli\n"
        "print({'numpy', 'tensorflow', 'scipy', 'grpc'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=PROCESS_S
    )
    assert result.stdout == "set()\n"


def test_importing_tensorflow_prints_nothing() -> None:
    """Importing the training code prints nothing to stderr."""
    code = "import marquee_trainer.models.neural.mf"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=PROCESS_S
    )
    assert result.stderr == ""
