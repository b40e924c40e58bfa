"""Tasks on a Ray cluster, which here runs on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from locations import PROJECT, TESTS
from marquee_core.errors import ArtifactError
from marquee_core.tasks.ray_tasks import run_on_ray
from marquee_core.tasks.task import MAX_TRIES, TaskError
from toy.tasks import Squares

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    """A cluster of two cores whose workers can import the project and its tests."""
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    paths = [str(PROJECT / "clients" / "python"), str(PROJECT / "services"), str(TESTS)]
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": ":".join(paths)}},
    )
    yield ray
    ray.shutdown()


def begun(folder: Path, number: int) -> list[str]:
    """Return the ids of the processes that have started a task."""
    return (folder / str(number)).read_text().split()


def test_a_killed_worker_costs_only_its_task(tmp_path: Path) -> None:
    """That task is restarted, every result arrives once, and reports arrive."""
    reports: list[tuple[int, int]] = []
    results = dict(
        run_on_ray(
            Squares(tmp_path, killed=3, kills=1),
            range(6),
            lambda place, value: reports.append((place, value)),
            address="auto",
        )
    )
    assert results == {number: number * number for number in range(6)}
    assert {(number, number) for number in range(6)} <= set(reports)
    assert len(set(begun(tmp_path, 3))) == 2
    assert all(len(begun(tmp_path, number)) == 1 for number in range(6) if number != 3)


def test_errors_keep_their_class(tmp_path: Path) -> None:
    """Errors keep their class, as they do without Ray."""
    with pytest.raises(ArtifactError, match="seven is refused"):
        list(run_on_ray(Squares(tmp_path, refused=7), [7, 1], address="auto"))


def test_a_task_that_always_kills_its_worker_is_an_error(tmp_path: Path) -> None:
    """Ray gives up after as many attempts as the process pool does."""
    with pytest.raises(TaskError, match="Ray"):
        list(run_on_ray(Squares(tmp_path, killed=0, kills=10), [0], address="auto"))
    assert len(begun(tmp_path, 0)) == MAX_TRIES


def test_closing_the_iterator_cancels_all_tasks(cluster: Any, tmp_path: Path) -> None:
    """A task in progress stops, and its core becomes free."""
    work = Squares(tmp_path, waits=1)
    with closing(run_on_ray(work, [0, 1, 1], address="auto")) as results:
        assert next(results) == (0, 0)
    (tmp_path / "again").mkdir()
    again = dict(run_on_ray(Squares(tmp_path / "again"), range(4), address="auto"))
    assert again == {number: number * number for number in range(4)}
    assert cluster.is_initialized()


def test_an_address_without_a_cluster_is_an_error() -> None:
    """The error names the address."""
    importlib.import_module("ray").shutdown()
    with pytest.raises(TaskError, match=r"Ray at 127\.0\.0\.1:1: "):
        list(run_on_ray(Squares(Path()), [1], address="127.0.0.1:1"))
