"""Expected errors of the commands are reported in one line, and defects with their traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from marquee_core.release.store import ReleaseStore
from marquee_services.commands.releases import releases
from toy.release import publish_toy
from toy.waiting import PROCESS_S

RELEASE = "20260101T000000Z-00000000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", RELEASE], "there is no release"),
        (["promote", "../x"], "not a release id"),
        (["rollback"], "no release to roll back to"),
    ],
)
def test_expected_errors_take_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    """The command exits with status 1 and prints the reason."""
    result = CliRunner().invoke(releases, ["--store", str(tmp_path), *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_damaged_store_is_an_expected_error(tmp_path: Path) -> None:
    """`list` reports a damaged production file in the same way."""
    (tmp_path / "production").write_text("{")
    result = CliRunner().invoke(releases, ["--store", str(tmp_path), "list"])
    assert result.exit_code == 1
    assert "damaged file 'production': not valid JSON: Expecting" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["releases", "--store", "nowhere://x", "list"], ["serve", "cf", "--store", "nowhere://x"]],
)
def test_a_store_that_cannot_be_used_is_an_expected_error(arguments: list[str]) -> None:
    """The message names the URL."""
    # In a separate process, because `serve` changes settings of its process.
    command = [sys.executable, "-m", "marquee.cli", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: release store 'nowhere://x'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("service", ["cf", "gateway", "standalone"])
def test_a_server_does_not_start_on_a_file_as_its_store(tmp_path: Path, service: str) -> None:
    """A mistyped store is reported in one line rather than by polls that fail forever."""
    file = tmp_path / "README.md"
    file.write_text("not a store")
    # In a separate process, because `serve` changes settings of its process.
    command = [sys.executable, "-m", "marquee.cli", "serve", service, "--store", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_S)
    assert result.returncode == 1
    assert f"Error: release store: {file} is not a folder\n" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("defect", [RuntimeError("defect"), ValueError("defect"), KeyError("x")])
def test_defects_keep_their_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: Exception
) -> None:
    """An unexpected error is raised unchanged."""

    def fail(store: ReleaseStore, **options: str) -> None:
        raise defect

    monkeypatch.setattr(ReleaseStore, "rollback", fail)
    result = CliRunner().invoke(releases, ["--store", str(tmp_path), "rollback"])
    assert result.exception is defect


def test_show_prints_a_summary_or_all_of_a_release(tmp_path: Path) -> None:
    """The default shows models, metrics and what is served, and `--json` prints everything."""
    url = str(tmp_path / "store")
    manifest = publish_toy(ReleaseStore(url), tmp_path / "release")
    command = ["--store", url, "show", manifest.release_id]
    short = CliRunner().invoke(releases, command)
    assert short.exit_code == 0, short.output
    data = manifest.data
    expected = (
        f"{data.rating_count:,} ratings by {data.user_count} users of {data.item_count} items"
    )
    assert expected in short.stdout
    assert all(model.name in short.stdout for model in manifest.models)
    assert len(short.stdout.splitlines()) < 40
    whole = CliRunner().invoke(releases, [*command, "--json"])
    assert json.loads(whole.stdout) == json.loads(manifest.to_json())


def test_pruning_lists_what_is_deleted_and_kept(tmp_path: Path) -> None:
    """The output has a line for each older release, and ends with the totals."""
    url = str(tmp_path / "store")
    store = ReleaseStore(url)
    ids = [publish_toy(store, tmp_path / f"{n}", seed=n).release_id for n in range(3)]
    store.promote(sorted(ids)[0])
    arguments = ["--store", url, "prune", "--keep", "1"]
    dry = CliRunner().invoke(releases, [*arguments, "--dry-run"]).stdout.splitlines()
    done = CliRunner().invoke(releases, arguments).stdout.splitlines()
    assert dry[-1].startswith("1 of 3 releases would be deleted; kept: the newest, and 1 older")
    assert done[-1] == (
        "1 of 3 releases deleted; kept: the newest, and 1 older because they are needed"
    )
    assert done[0] == f"{sorted(ids)[0]} kept: in production"
    assert len(store.ids()) == 2


def test_the_users_of_a_release_are_listed(tmp_path: Path) -> None:
    """Ids are printed one per line, from the release in production or a given release."""
    url = str(tmp_path / "store")
    store = ReleaseStore(url)
    first = publish_toy(store, tmp_path / "release")
    empty = CliRunner().invoke(releases, ["--store", url, "users"])
    assert (empty.exit_code, empty.stderr) == (1, "Error: no release is in production\n")
    store.promote(first.release_id)
    for arguments in ([], [first.release_id]):
        result = CliRunner().invoke(releases, ["--store", url, "users", *arguments])
        assert result.exit_code == 0, result.output
        users = result.stdout.splitlines()
        assert len(set(users)) == len(users) == first.data.user_count
