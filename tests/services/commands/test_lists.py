"""`marquee batch --store`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

from marquee.cli import main
from marquee_core.release.store import ReleaseStore
from toy.lists import rows_of
from toy.release import publish_toy
from toy.waiting import WAIT_S, wait_until

Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """A store whose release in production can be loaded by the servers."""
    opened = ReleaseStore(str(tmp_path / "store"))
    opened.promote(publish_toy(opened, tmp_path / "made", servable=True).release_id)
    return opened


@pytest.fixture
def run(store: ReleaseStore) -> Run:
    """Run `marquee batch` with that store."""

    def invoke(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(main, ["batch", "--store", store.url, *arguments], input=text)

    return invoke


def test_lists_of_all_or_given_users_are_written(run: Run, tmp_path: Path) -> None:
    """With --store, no users means all, and the options are those of a batch through a gateway."""
    out = tmp_path / "lists"
    result = run("--out", str(out), "--limit", "5", "--processes", "1", "--part-users", "30")
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith(f"wrote {out}: 200 recommendations for 40 users\n")
    parts = [rows_of(path.read_bytes()) for path in sorted(out.iterdir())]
    assert [len(rows) for rows in parts] == [150, 50]
    again = run("--out", str(out), "--limit", "5", "--processes", "1", "--part-users", "30")
    assert again.stderr.endswith("for 40 users, of which 40 already existed\n")
    path = tmp_path / "some.parquet"
    some = run("u3", "--file", "-", "--out", str(path), "--processes", "1", text="u1\n\nu2\n")
    assert some.exit_code == 0, some.output
    assert [row["user_id"] for row in rows_of(path.read_bytes())[::10]] == ["u3", "u1", "u2"]


def test_invalid_options_are_refused(run: Run, store: ReleaseStore, tmp_path: Path) -> None:
    """Each error takes one line, and nothing is written."""
    out = str(tmp_path / "lists")
    for arguments, error in (
        ((), "--store writes files and needs --out"),
        (("--out", out, "--limit", "2000"), "page_size: must be between 0 and 1000"),
        (("--out", out, "--model", "none"), "the release has no model 'none'"),
        (("--out", out, "--release", "20200101T000000Z-00000000"), "20200101T000000Z-00000000"),
        (("--out", f"{out}/*.csv"), "must end in .parquet"),
        (("--out", f"{out}.csv"), "a name that ends in .parquet"),
        (("--out", f"{out}.jsonl"), "a name that ends in .parquet"),
        (("--out", f"{out}/all.parquet"), f"there is no folder {out}"),
        (("--out", out, "--file", "-"), "--file contains no user ids"),
    ):
        result = run(*arguments)
        assert result.exit_code in (1, 2), result.output
        assert error in result.stderr
        assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("lists*"))
    empty = tmp_path / "empty"
    result = CliRunner().invoke(main, ["batch", "--store", str(empty), "--out", out])
    assert "has no release in production" in result.stderr
    through_gateway = CliRunner().invoke(main, ["batch", "1", "--out", "x.csv", "--reasons"])
    assert "needs --store" in through_gateway.stderr


def processes_of_group(group: int) -> bytes:
    """Return the ids of the processes of a process group."""
    found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, check=False)
    return found.stdout


@pytest.mark.slow
def test_an_interrupted_run_stops_promptly_and_can_be_resumed(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """Ctrl-C leaves finished parts, no process and no partial file, and a rerun writes the rest."""
    users, out = tmp_path / "users.txt", tmp_path / "lists"
    # One user many times: more parts than any machine computes before the signal arrives.
    users.write_text("u1\n" * 40_000)
    command = [sys.executable, "-m", "marquee.cli", "batch", "--store", store.url]
    command += ["--out", str(out), "--file", str(users), "--part-users", "10", "--processes", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: out.exists() and len(list(out.glob("part-*"))) >= 3)
        # To all processes of the group, as a terminal does.
        os.killpg(process.pid, signal.SIGINT)
        _, text = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "parts are finished. The same command continues from there.\n" in text
    assert "Traceback" not in text
    wait_until(lambda: not processes_of_group(process.pid))
    names = {path.name for path in out.iterdir()}
    assert all(name.startswith("part-") for name in names)
    finished = len(names)
    assert finished < 4_000
    users.write_text("u1\n" * 10 * (finished + 3))
    rest = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert f"users, of which {10 * finished:,} already existed" in rest.stderr
    assert len(list(out.iterdir())) == finished + 3
