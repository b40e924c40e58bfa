"""Plug-in commands, which other packages add to `marquee`."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

import marquee
from marquee.cli import _group, main
from toy.waiting import PROCESS_S


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the entry points by name; a test adds its own, and the installed ones are hidden."""
    points: dict[str, str] = {}
    monkeypatch.setattr(
        _group,
        "_plug_ins",
        lambda: {
            name: EntryPoint(name, value, _group.ENTRY_POINTS) for name, value in points.items()
        },
    )
    return points


def test_version_prints_the_version_of_the_distribution() -> None:
    """`--version` prints the name and version of the distribution."""
    result = CliRunner().invoke(main, ["--version"], prog_name="marquee")
    assert result.stdout == f"marquee {marquee.__version__}\n"


def test_a_plug_in_command_runs(plug_in: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command found by its entry point runs with its own arguments."""
    module = ModuleType("marquee_test_plug_in")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    @click.command()
    @click.argument("word")
    def shout(word: str) -> None:
        click.echo(word.upper())

    vars(module)["shout"] = shout
    plug_in["shout"] = f"{module.__name__}:shout"
    assert CliRunner().invoke(main, ["shout", "hey"]).stdout == "HEY\n"
    assert "shout" in CliRunner().invoke(main, ["--help"]).stdout


def test_help_imports_no_plug_in(plug_in: dict[str, str]) -> None:
    """Help lists every installed command, including one that cannot be imported."""
    plug_in["train"] = "no_such_module:train"
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert "Train all models and publish a release." in result.stdout


def test_help_describes_every_installed_command() -> None:
    """The table has the short help and the extra of each plug-in of the project."""
    installed = {
        entry.name
        for entry in entry_points(group=_group.ENTRY_POINTS)
        if entry.module.startswith("marquee_")
    }
    assert installed == set(_group._OWN_COMMANDS)


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("serve", "numpy", "gateway"),
        ("serve", "scipy", "cf"),
        ("serve", "tensorflow", "inference"),
        ("releases", "fsspec", "server"),
        ("train", "keras", "trainer"),
        ("demo", "numpy", "trainer"),
    ],
)
@pytest.mark.parametrize("when", ["import", "call"])
def test_a_missing_extra_is_named(
    plug_in: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    missing: str,
    extra: str,
    when: str,
) -> None:
    """If a dependency is missing, the error names the extra that installs it."""
    name = f"marquee_test_{command}_{missing}_{when}"
    body = f"import {missing}"
    if when == "call":
        body = f"import click\n@click.command()\ndef {command}():\n    import {missing}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    plug_in[command] = f"{name}:{command}"
    result = CliRunner().invoke(main, [command])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: `marquee {command}` needs {missing}, which is not installed: "
        f"pip install 'marquee-recommender[{extra}]'\n"
    )


def test_a_missing_module_of_the_project_shows_its_traceback(plug_in: dict[str, str]) -> None:
    """A missing module of the project is a defect, which no extra would fix."""
    plug_in["serve"] = "marquee_no_such_package:serve"
    assert isinstance(CliRunner().invoke(main, ["serve"]).exception, ModuleNotFoundError)


def test_an_entry_point_that_is_not_a_command_is_refused(plug_in: dict[str, str]) -> None:
    """The error says that the entry point is not a click command."""
    plug_in["odd"] = "math:pi"
    result = CliRunner().invoke(main, ["odd"])
    assert result.exit_code == 1
    assert "not a click command" in result.stderr


def test_help_imports_no_heavy_packages() -> None:
    """`marquee --help` imports neither gRPC nor any package that only extras need."""
    code = (
        "import sys\nfrom marquee.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('modules', *sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=PROCESS_S
    )
    modules = set(result.stdout.partition("\nmodules ")[2].split())
    assert "marquee.cli" in modules
    assert not {"grpc", "google.protobuf", "numpy", "marquee_services.commands.serve"} & modules


def test_a_misplaced_connection_option_is_explained() -> None:
    """The error says where the option belongs instead of suggesting another option."""
    result = CliRunner().invoke(main, ["recommend", "--address", "x:1"], prog_name="marquee")
    assert result.exit_code == 2
    expected = "--address must precede the command: marquee --address … recommend"
    assert result.stderr.endswith(f"Error: {expected}\n")
