"""Tasks in processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from locations import TESTS
from marquee_core.errors import ArtifactError
from marquee_core.tasks.processes import run_in_processes
from marquee_core.tasks.task import MAX_TRIES, TaskError
from toy.tasks import Squares


def begun(folder: Path, number: int) -> list[int]:
    """Return the ids of the processes that have started a task."""
    return [int(line) for line in (folder / str(number)).read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether there is a process with this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_process_costs_only_its_task(tmp_path: Path) -> None:
    """That task is restarted in another process, and every result arrives once."""
    reports: Counter[int] = Counter()
    results = dict(
        run_in_processes(
            Squares(tmp_path, killed=3, kills=1),
            range(8),
            processes=2,
            on_report=lambda place, value: reports.update([place] if place == value else []),
        )
    )
    assert results == {number: number * number for number in range(8)}
    assert reports == Counter({number: 1 + (number == 3) for number in range(8)})
    first, second = begun(tmp_path, 3)
    assert first != second
    assert all(len(begun(tmp_path, number)) == 1 for number in range(8) if number != 3)
    processes = {pid for number in range(8) for pid in begun(tmp_path, number)}
    assert os.getpid() not in processes
    assert not any(map(is_running, processes))


def test_the_script_of_the_caller_is_not_rerun(tmp_path: Path) -> None:
    """A script without a main guard, such as a notebook, does not start copies of itself."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from marquee_core.tasks.processes import run_in_processes\n"
        "from toy.tasks import Squares\n"
        f"work = Squares(Path({str(tmp_path)!r}))\n"
        "print(sorted(run_in_processes(work, [3, 4], processes=2)))\n"
    )
    found = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[(0, 9), (1, 16)]\n"


def test_a_task_that_always_kills_its_process_is_an_error(tmp_path: Path) -> None:
    """The error names the task and how its process ended."""
    work = Squares(tmp_path, killed=0, kills=10)
    with pytest.raises(TaskError, match=r"process of task 1 died 3 times \(exit status -9"):
        list(run_in_processes(work, [0], processes=1))
    assert len(begun(tmp_path, 0)) == MAX_TRIES


def test_an_error_in_a_task_is_raised_and_stops_the_others(tmp_path: Path) -> None:
    """The error keeps its class, and processes with tasks in progress are stopped immediately."""
    work = Squares(tmp_path, refused=7, waits=1)
    with pytest.raises(ArtifactError, match="seven is refused"):
        list(run_in_processes(work, [1, 7], processes=2))
    assert not is_running(begun(tmp_path, 7)[0])
    if (tmp_path / "1").exists():
        assert not is_running(begun(tmp_path, 1)[0])


def test_closing_the_iterator_stops_all_processes(tmp_path: Path) -> None:
    """As after Ctrl-C, tasks in progress are abandoned and no process is left."""
    work = Squares(tmp_path, waits=1)
    with closing(run_in_processes(work, [0, 2, 1], processes=1)) as results:
        assert next(results) == (0, 0)
    assert not is_running(begun(tmp_path, 0)[0])
    assert not (tmp_path / "1").exists()
