"""Trials of a search on a Ray cluster, which here runs on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from locations import PROJECT, TESTS
from marquee_core.errors import ArtifactError
from marquee_core.tasks.task import TaskError
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.tuning.search import tune
from marquee_trainer.tuning.study import ModelStudy
from marquee_trainer.tuning.trials import Search
from toy.tuning import EPOCHS, ToyTask, error_of
from toy.waiting import PROCESS_S

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

HOUR = 3600.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A function that starts a cluster whose workers can import the project and its tests."""
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    pytest.importorskip("ray.tune", reason="needs the extra `ray`")
    folders = (PROJECT / "clients" / "python", PROJECT / "services", PROJECT / "trainer", TESTS)

    def start(cores: int) -> None:
        ray.shutdown()
        ray.init(
            "local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": ":".join(map(str, folders))}},
        )

    yield start
    ray.shutdown()


@pytest.fixture(scope="module")
def one_core(cluster: Callable[[int], None]) -> None:
    """A cluster that runs one trial at a time."""
    cluster(1)


def run(task: ToyTask, trials: int, file: Path | None = None) -> Search:
    """Search item CF with a number of trials."""
    from marquee_trainer.tuning.ray_trials import run_trials_on_ray

    study = study_of(task, file or task.folder / "trials.jsonl")
    run_trials_on_ray([study], task, HOUR, trials, lambda _: None)
    return study.search


def study_of(task: ToyTask, file: Path) -> ModelStudy:
    """Open the study of item CF in a file."""
    return ModelStudy("item_cf", task, JournalStorage(JournalFileBackend(str(file))))


@pytest.mark.usefixtures("one_core")
def test_bad_trials_are_pruned_and_the_search_can_continue(tmp_path: Path) -> None:
    """The trials are those of a study in this process, and another run continues from the file."""
    task = ToyTask.on(tmp_path)
    found = run(task, 12)
    pruned = [trial for trial in found.trials if trial.pruned]
    assert len(found.trials) == 12
    assert pruned
    assert not found.best.pruned
    # A trial at a time makes the same proposals as a search without Ray.
    (tmp_path / "here").mkdir()
    here = study_of(ToyTask.on(tmp_path / "here"), tmp_path / "here.jsonl")
    while len(here.search.trials) < len(found.trials):
        proposal = here.propose()
        ended = any(
            here.should_prune(proposal, epoch, error_of(proposal.parameters, epoch))
            for epoch in range(1, EPOCHS + 1)
        )
        loss = error_of(proposal.parameters, EPOCHS)
        here.record(proposal, None if ended else loss, 1.0)
    assert [trial.parameters for trial in here.search.trials] == [
        trial.parameters for trial in found.trials
    ]
    again = study_of(task, tmp_path / "trials.jsonl").search
    assert again.trials == found.trials


@pytest.mark.usefixtures("one_core")
def test_a_killed_worker_costs_only_its_trial(tmp_path: Path) -> None:
    """That trial is repeated in another process, and no other trial is."""
    task = ToyTask.on(tmp_path, killed=2, kills=1)
    found = run(task, 4)
    assert len(found.trials) == 4
    assert found.lost == 0
    begun = task.begun()
    assert [parameters for parameters, _ in begun].count(begun[1][0]) == 2
    assert begun[1][0] == begun[2][0]
    assert begun[1][1] != begun[2][1]
    assert len(begun) == 5


@pytest.mark.usefixtures("one_core")
def test_a_trial_that_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    """The search goes on without it, unless the model has no other trial."""
    found = run(ToyTask.on(tmp_path, killed=2, kills=3), 3)
    assert found.lost == 1
    assert len(found.trials) == 2
    (tmp_path / "first").mkdir()
    with pytest.raises(TaskError, match="item_cf died 3 times"):
        run(ToyTask.on(tmp_path / "first", killed=1, kills=3), 3)


@pytest.mark.usefixtures("one_core")
def test_the_error_of_a_trial_ends_the_search(tmp_path: Path) -> None:
    """It keeps its class, the trial is not repeated, and earlier trials are in the file."""
    task = ToyTask.on(tmp_path, refused=3)
    with pytest.raises(ArtifactError, match="the trial is refused"):
        run(task, 5)
    assert len(task.begun()) == 3
    assert len(study_of(task, tmp_path / "trials.jsonl").search.trials) == 2


def test_models_are_searched_on_two_cores(
    cluster: Callable[[int], None], small_dataset: RatingsDataset, small_split: Split
) -> None:
    """The first trial is the start configuration, and its loss that of a search without Ray."""
    cluster(2)
    models, start = ["item_cf", "ials"], {"item_cf": {"shrinkage": 11.0}}

    def search(ray: str, trials: int) -> list[Search]:
        return tune(
            *(small_dataset, small_split, models, 60.0, 0, start, lambda _: None),
            max_trials=trials,
            ray=ray,
        )

    for found, expected in zip(search("auto", 3), search("", 1), strict=True):
        assert len(found.trials) == 3
        begun = next(
            trial for trial in found.trials if trial.parameters == expected.trials[0].parameters
        )
        assert begun.loss == pytest.approx(expected.trials[0].loss)


def test_an_interrupted_command_ends_and_keeps_its_results(
    cluster: Callable[[int], None], tmp_path: Path
) -> None:
    """Ctrl-C ends the command; the best configuration so far is in the file."""
    del cluster
    out = tmp_path / "tuned.json"
    command = [sys.executable, "-m", "marquee.cli", "tune", "--ray", "local", "--models", "item_cf"]
    data = ["--data", "sample:users=60,items=50,ratings=1500", "--minutes", "60", "--out", str(out)]
    with subprocess.Popen(
        [*command, *data], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + PROCESS_S
        while not out.exists() and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 130, errors
    assert "Interrupted. The best configurations found so far are kept." in errors
    assert json.loads(out.read_text())["models"]["item_cf"]["trials"] >= 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]
