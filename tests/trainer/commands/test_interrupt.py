"""Ctrl-C and SIGTERM: the command ends within two seconds with one line and a clean store.

The two seconds are measured in CPU time, because any wait is longer on a busy machine.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toy.waiting import PROCESS_S

pytestmark = pytest.mark.alone

SECONDS = 2.0
# Large enough for a first fit to take some time.
DATA = "sample:users=3000,items=2500,ratings=200000"
# Models whose fits are long computations outside Python, in LAPACK, Numba and TensorFlow.
EASE, BAYESIAN_MF, MF = "ease", "bayesian_mf", "mf"

# Fits one model, as `marquee train` does, and reports the start.
TRAIN = """
import sys
from marquee_trainer.commands import cli, train
from marquee_trainer.models import configurations
make = {make_model().name: make_model for make_model in configurations.model_factories(200_000, "")}
train.model_factories = lambda *_: [make[sys.argv[1]]]
cli.train(["--data", sys.argv[2], "--store", sys.argv[3]], prog_name="marquee train")
"""

TUNE = """
import sys
from marquee.cli import main
main([*sys.argv[1:], "--data", "sample:users=300,items=200,ratings=9000", "--out", "tuned.json"])
"""

# A similar computation: the main thread runs C code without the interpreter lock.
UNINTERRUPTIBLE = """
import hashlib, sys, tempfile
from marquee_trainer.commands import cli, train

def compute(settings, lease):
    tempfile.mkstemp()
    print("started", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)  # minutes

train.run_training = compute
cli.train([], prog_name="marquee train")
"""


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python in a separate session, with temporary files in `folder`/tmp."""
    (folder / "tmp").mkdir()
    with (folder / "stderr").open("w") as stderr, (folder / "stdout").open("w") as stdout:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=stdout,
            stderr=stderr,
            text=True,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(file: Path, text: str, process: subprocess.Popen[str]) -> None:
    """Wait until the file contains the text."""
    deadline = time.monotonic() + PROCESS_S
    while text not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[str], number: int) -> float:
    """Send a signal and wait for the end; return the CPU seconds until then.

    The CPU time is divided by the cores, since a computation may use threads on all of them.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    before = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    process.send_signal(number)
    process.wait(PROCESS_S)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = now.ru_utime + now.ru_stime - ended.ru_utime - ended.ru_stime
    return (total - before) / len(os.sched_getaffinity(0))


def assert_no_process_is_left(session: int) -> None:
    """Check that no process of the session, named by the id of its first process, is running."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True)
    running = [line for line in found.stdout.decode().splitlines() if " Z" not in line]
    assert running == []


@pytest.mark.parametrize(
    ("model", "number"),
    [
        (EASE, signal.SIGINT),
        (BAYESIAN_MF, signal.SIGTERM),
        (MF, signal.SIGINT),
        (MF, signal.SIGTERM),
    ],
)
def test_a_fit_ends_within_two_seconds(model: str, number: int, tmp_path: Path) -> None:
    """No release and no temporary file is left, and stderr has one more line."""
    with running(tmp_path, "-c", TRAIN, model, DATA, "store") as process:
        wait_for(tmp_path / "stderr", f"fit {model}", process)
        time.sleep(0.5)  # So that the fit is in progress, at any point.
        before = (tmp_path / "stderr").read_text()
        seconds = interrupt(process, number)
        after = (tmp_path / "stderr").read_text()
        assert process.returncode == 130, after
        assert after == before + "Interrupted. No release was published.\n"
        assert "tensorflow" not in after.lower()
        assert "onednn" not in after.lower()
        assert seconds < SECONDS
        releases = tmp_path / "store" / "releases"
        assert [path for path in releases.rglob("*") if path.is_file()] == []
        assert list((tmp_path / "tmp").iterdir()) == []
        assert_no_process_is_left(process.pid)


def test_tuning_ends_within_two_seconds_and_can_be_resumed(tmp_path: Path) -> None:
    """The results are in the file, and another run continues after the trials of the first."""
    arguments = ["-c", TUNE, "tune", "--models", "item_cf", "--minutes", "30"]
    with running(tmp_path, *arguments) as process:
        wait_for(tmp_path / "stdout", "item_cf 0", process)
        seconds = interrupt(process, signal.SIGINT)
        text = (tmp_path / "stderr").read_text()
        assert process.returncode == 130, text
        assert text.splitlines()[-1].startswith("Interrupted.")
        assert "Traceback" not in text
        assert seconds < SECONDS
        assert_no_process_is_left(process.pid)
    first = (tmp_path / "stdout").read_text()
    trials = sum(line.startswith("item_cf 0") for line in first.splitlines())
    assert f"in {trials} trials" in first
    assert "item_cf" in (tmp_path / "tuned.json").read_text()
    (tmp_path / "tmp").rmdir()
    arguments += ["--max-trials", "2"]
    with running(tmp_path, *arguments) as process:
        assert process.wait(PROCESS_S) == 0, (tmp_path / "stderr").read_text()
    second = (tmp_path / "stdout").read_text()
    assert sum(line.startswith("item_cf 0") for line in second.splitlines()) == 2
    # One more if the first run was interrupted between recording and reporting a trial.
    assert re.search(rf"in ({trials + 2}|{trials + 3}) trials", second)


def test_a_computation_that_does_not_return_is_ended(tmp_path: Path) -> None:
    """Temporary files are removed even if no Python code runs in the main thread."""
    with running(tmp_path, "-c", UNINTERRUPTIBLE) as process:
        wait_for(tmp_path / "stderr", "started", process)
        seconds = interrupt(process, signal.SIGINT)
        assert process.returncode == 130
        text = (tmp_path / "stderr").read_text()
        *_, before, last = text.splitlines()
        assert (before, last) == ("started", "Interrupted. No release was published.")
        assert seconds < SECONDS
        assert list((tmp_path / "tmp").iterdir()) == []


def test_without_a_signal_nothing_changes(tmp_path: Path) -> None:
    """Signal handlers and the temporary folder are restored, and no line is written."""
    code = (
        "import signal, tempfile\n"
        "from marquee_trainer.commands.interrupt import InterruptHandler\n"
        "before = tempfile.gettempdir(), signal.getsignal(signal.SIGINT)\n"
        "with InterruptHandler('Never shown.'):\n"
        "    assert tempfile.gettempdir() != before[0]\n"
        "    tempfile.mkstemp()\n"
        "assert (tempfile.gettempdir(), signal.getsignal(signal.SIGINT)) == before\n"
    )
    with running(tmp_path, "-c", code) as process:
        assert process.wait(PROCESS_S) == 0
    assert (tmp_path / "stderr").read_text() == ""
    assert list((tmp_path / "tmp").iterdir()) == []
