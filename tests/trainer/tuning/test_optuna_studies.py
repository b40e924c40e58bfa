"""Optuna studies: resuming, pruning, and the same result for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from marquee_trainer.commands import cli
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split, random_split
from marquee_trainer.models.configurations import read_parameters
from marquee_trainer.models.model import Epoch, Fit, Training
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.registry import MODELS_BY_NAME
from marquee_trainer.tuning.search import tune
from marquee_trainer.tuning.trials import Search
from marquee_trainer.tuning.tuned_file import TunedFile

MINUTES = 30.0  # Never reached, because the number of trials ends each search.


@pytest.fixture(scope="module")
def ratings() -> tuple[RatingsDataset, Split]:
    """A small data set and a split of it."""
    dataset = generate_sample(SampleConfig(users=40, items=30, ratings=600), seed=5)
    return dataset, random_split(dataset.file_order, 0.2, 0)


@pytest.fixture
def search(ratings: tuple[RatingsDataset, Split]) -> Callable[..., Search]:
    """A function that tunes item CF with a number of trials."""

    def run(trials: int, storage: Path | None = None, seed: int = 0) -> Search:
        (found,) = tune(
            *ratings,
            ["item_cf"],
            MINUTES,
            seed,
            {},
            lambda _: None,
            max_trials=trials,
            storage=storage,
        )
        return found

    return run


def test_a_seed_determines_the_trials(search: Callable[..., Search]) -> None:
    """Equal seeds give equal trials, and another seed gives different ones."""
    first, again, other = (
        [(trial.parameters, trial.loss) for trial in search(10, seed=seed).trials]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first[1:] != other[1:]


def test_a_search_is_resumed_from_its_file(search: Callable[..., Search], tmp_path: Path) -> None:
    """A second run keeps the trials of the first, and tries other configurations."""
    path = tmp_path / "tuned.trials.jsonl"
    first = search(4, path)
    second = search(4, path)
    assert second.study == first.study
    assert second.trials[:4] == first.trials
    assert len(second.trials) == 8
    tried = [json.dumps(dict(trial.parameters)) for trial in second.trials]
    assert len(set(tried)) == len(tried)


def test_losses_of_different_validation_splits_are_kept_apart(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    """Another seed, which splits differently, creates a separate study in the same file."""
    path = tmp_path / "tuned.trials.jsonl"
    first, other = search(2, path), search(2, path, seed=1)
    assert other.study != first.study
    assert len(other.trials) == 2
    assert search(1, path).trials[:2] == first.trials


def test_a_resumed_study_counts_its_trials_once(
    search: Callable[..., Search], ratings: tuple[RatingsDataset, Split], tmp_path: Path
) -> None:
    """The file has the number of all trials of the study, however often it is written."""
    path, out = tmp_path / "tuned.trials.jsonl", tmp_path / "tuned.json"
    for expected in (3, 6):
        file = TunedFile(out, *ratings, 0)
        found = search(3, path)
        file.write([found])
        file.write([found])
        assert json.loads(out.read_text())["models"]["item_cf"]["trials"] == expected


class SlowItemCF(ItemCF):
    """Item CF that reports 20 epochs, with errors that increase with the shrinkage."""

    @property
    def max_epochs(self) -> int:
        """See `Model.max_epochs`."""
        return 20

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        for number in range(1, self.max_epochs + 1):
            error = self.config.shrinkage + 1.0 / number
            training.on_epoch(Epoch(error, error))
        return super().fit(training)


def test_trials_that_are_worse_than_the_median_are_pruned(
    search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pruned trials end before their last epoch, are never the best, and are recorded as pruned."""
    monkeypatch.setitem(cast(Any, MODELS_BY_NAME), "item_cf", SlowItemCF)
    path = tmp_path / "tuned.trials.jsonl"
    trials = search(20, path).trials
    pruned = [trial for trial in trials if trial.pruned]
    completed = [trial for trial in trials if not trial.pruned]
    assert pruned
    assert len(completed) >= 5
    assert min(trial.parameters["shrinkage"] for trial in pruned) > min(
        trial.parameters["shrinkage"] for trial in completed
    )
    found = search(1, path)
    assert found.trials[:20] == trials
    assert not found.best.pruned


def test_an_interrupted_search_keeps_its_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After Ctrl-C the file has the best result so far, and the next run continues from it."""
    fit, fits = ItemCF.fit, []

    def interrupted(self: ItemCF, training: Training) -> Fit:
        fits.append(self.config)
        if len(fits) == 4:
            raise KeyboardInterrupt
        return fit(self, training)

    monkeypatch.setattr(ItemCF, "fit", interrupted)
    out = tmp_path / "tuned.json"
    arguments = ["--data", "sample:users=40,items=30,ratings=600", "--models", "item_cf"]
    arguments += ["--max-trials", "5", "--out", str(out)]
    runner = CliRunner()
    first = runner.invoke(cli.tune, arguments)
    assert first.exit_code != 0
    assert "in 3 trials" in first.output
    assert list(read_parameters(out)) == ["item_cf"]
    assert json.loads(out.read_text())["models"]["item_cf"]["trials"] == 3
    second = runner.invoke(cli.tune, arguments)
    assert second.exit_code == 0, second.output
    assert "in 8 trials" in second.output
    assert fits[4] != fits[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tuned.json",
        "tuned.trials.jsonl",
    ]
