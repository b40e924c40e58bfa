"""Searching configurations, and training with those that were found."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.commands import cli
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split, random_split
from marquee_trainer.metrics.ranking_metrics import RankingTask, ranking_metrics
from marquee_trainer.models import configurations
from marquee_trainer.models.configurations import (
    ConfigurationError,
    changed,
    default_config,
    model_kinds,
    models_for,
    packaged,
    read_parameters,
    value_of,
)
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.model import Training, score_known
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.mf import MF
from marquee_trainer.training.train import (
    TrainingConfig,
    interactions_of,
    release_data,
    validation_split,
)
from marquee_trainer.tuning.search import Search, Trial, tune, write_configurations
from marquee_trainer.tuning.spaces import SPACES, Range


@pytest.fixture(scope="module")
def ratings() -> tuple[RatingsDataset, Split]:
    """A small data set and its split."""
    dataset = generate_sample(SampleConfig(users=60, items=50, ratings=1500), seed=3)
    return dataset, random_split(dataset.file_order, 0.2, 0)


@given(
    st.floats(0.01, 10.0),
    st.floats(1.1, 100.0),
    st.booleans(),
    st.floats(0.0, 1.0),
    st.integers(0, 1000),
)
def test_values_stay_within_their_range(
    low: float, factor: float, log: bool, place: float, seed: int
) -> None:
    """Drawn at random or near another value, up to the rounding to three digits."""
    values = Range(low, low * factor, log=log)
    random = np.random.default_rng(seed)
    other = low * (1 + (factor - 1) * place)
    for value in (values.draw(random), values.near(other, 0.3, random)):
        assert low * 0.995 <= value <= low * factor * 1.005


def test_every_space_fits_its_models_configuration() -> None:
    """Both ends of every range make a configuration, and the default is within."""
    for name, space in SPACES.items():
        config = default_config(model_kinds()[name])
        for parameter, values in space.items():
            for end in (values.low, values.high):
                value = round(end) if values.whole else end
                assert value_of(changed(config, {parameter: value}), parameter) == value
            present = value_of(config, parameter)
            assert values.low <= present <= values.high, (name, parameter)


def test_a_search_never_ends_above_its_start(ratings: tuple[RatingsDataset, Split]) -> None:
    """The first trial is the start itself; what is reported as best has the least loss."""
    dataset, split = ratings
    heard: list[tuple[str, Trial]] = []
    start = {"item_cf": {"shrinkage": 11.0}}
    searches = tune(
        dataset,
        split,
        ["item_cf", "ials"],
        0.02,
        0,
        start,
        lambda name, trial: heard.append((name, trial)),
    )
    assert [search.model for search in searches] == ["item_cf", "ials"]
    begun = default_config(ItemCF)
    expected = {name: value_of(begun, name) for name in SPACES["item_cf"]}
    assert searches[0].trials[0].parameters == {**expected, "shrinkage": 11.0}
    assert heard == [(search.model, trial) for search in searches for trial in search.trials]
    for search in searches:
        assert search.best.loss == min(trial.loss for trial in search.trials)
        for trial in search.trials:
            assert set(trial.parameters) == set(SPACES[search.model])


def test_a_search_reads_no_test_ratings(ratings: tuple[RatingsDataset, Split]) -> None:
    """Other test ratings change nothing."""
    dataset, split = ratings
    blind = Split(split.train, split.test[:1], split.description)
    for part in (split, blind):
        (search,) = tune(dataset, part, ["item_cf"], 0.0, 0, {}, lambda *_: None)
        assert len(search.trials) == 1
        assert search.trials[0].loss == pytest.approx(
            tune(dataset, split, ["item_cf"], 0.0, 0, {}, lambda *_: None)[0].trials[0].loss
        )


def test_a_loss_is_that_of_the_trial_s_own_parameters(
    ratings: tuple[RatingsDataset, Split],
) -> None:
    """A model that chooses on validation ratings by itself chooses nothing while it is searched."""
    dataset, split = ratings
    start = {"ials": {"regularisation": 0.03, "unobserved_weight": 1.5}}
    (search,) = tune(dataset, split, ["ials"], 0.0, 0, start, lambda *_: None)
    trial = search.trials[0]
    config = TrainingConfig(seed=0)
    inner = validation_split(dataset, split, config)
    data = release_data(dataset, inner.train, config.baseline)
    model = IALS(changed(default_config(IALS), trial.parameters))
    model.fit(Training(data))
    task = RankingTask.of(data.matrix, interactions_of(dataset, inner.test), config.relevant_stars)
    found = ranking_metrics(task, score_known(model.scorer, data), 10)
    assert trial.loss == pytest.approx(1.0 - found.ndcg)


def test_training_uses_what_a_search_wrote(
    ratings: tuple[RatingsDataset, Split], tmp_path: Path
) -> None:
    """Parameters come back as the models' configurations; searches of other models are kept."""
    dataset, split = ratings
    path = tmp_path / "tuned.json"
    found = Search("mf", [Trial({}, 0.9, 1.0), Trial({"l2": 0.05, "fold_in.ridge": 2.0}, 0.8, 1.0)])
    write_configurations(path, dataset, split, [found], 0)
    other = Search("ials", [Trial({"dimensions": 7}, 0.5, 1.0)])
    write_configurations(path, dataset, split, [other], 0)
    made = {model().name: model() for model in models_for(len(split.train), str(path))}
    assert list(made) == list(model_kinds())
    mf, ials, item_cf = made["mf"], made["ials"], made["item_cf"]
    assert isinstance(mf, MF)
    assert isinstance(ials, IALS)
    assert mf.parameters["l2"] == 0.05
    assert mf.parameters["fold_in"] == {
        "ridge": 2.0,
        "ridge_per_rating": MF.default.fold_in.ridge_per_rating,
        "bias_ridge": MF.default.fold_in.bias_ridge,
    }
    assert ials.parameters["dimensions"] == 7
    assert item_cf.parameters == ItemCF().parameters
    written = json.loads(path.read_text())
    assert written["data"]["training_fingerprint"] == dataset.fingerprint(split.train)
    assert written["models"]["mf"]["validation_loss"] == 0.8
    assert written["models"]["mf"]["trials"] == 2
    write_configurations(path, dataset, split, [found], 0)
    assert json.loads(path.read_text())["models"]["mf"]["trials"] == 4


def test_the_packages_configurations_hold_for_data_of_like_size() -> None:
    """The file for ml-100k is used near its size, and nothing for data that are far from any."""
    path = packaged(80_000)
    assert path is not None
    assert path.name == "ml-100k.json"
    assert packaged(120_000) == path
    assert packaged(5_000) is None
    for name, parameters in read_parameters(path).items():
        assert set(parameters) <= set(SPACES[name])
    by_default = {model().name: model().parameters for model in models_for(5_000)}
    tuned = {model().name: model().parameters for model in models_for(80_000)}
    assert list(tuned) == list(by_default)
    assert tuned != by_default


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "JSONDecodeError"),
        ('{"models": {"mf": {}}}', "parameters"),
        ('{"models": {"none": {"parameters": {}}}}', "no model 'none'"),
        ('{"models": {"mf": {"parameters": {"l3": 1}}}}', "no 'l3'"),
        ('{"models": {"mf": {"parameters": {"l2": "much"}}}}', "no number"),
        ('{"models": {"mf": {"parameters": {"dimensions": 1.5}}}}', "no whole number"),
        ('{"models": {"ials": {"parameters": {"sweeps": 0}}}}', "sweeps"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, match: str) -> None:
    """What is wrong is told, and no model is trained with less than what was asked for."""
    path = tmp_path / "tuned.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=match):
        models_for(100, str(path))


def test_the_command_tells_trials_and_adds_to_its_file(tmp_path: Path) -> None:
    """A line for each trial, and the file that `train --config` takes."""
    path = tmp_path / "tuned.json"
    runner = CliRunner()
    arguments = ["--models", "item_cf", "--minutes", "0", "--out", str(path)]
    result = runner.invoke(cli.tune, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("item_cf 0.")
    assert list(read_parameters(path)) == ["item_cf"]
    unknown = runner.invoke(cli.tune, ["--models", "x", "--minutes", "0", "--out", str(path)])
    assert unknown.exit_code != 0
    assert "nothing to tune of 'x'" in unknown.output


def test_every_configuration_has_numbers_to_change() -> None:
    """`changed` refuses what is no number, so the spaces hold numbers alone."""
    for kind in model_kinds().values():
        config = default_config(kind)
        assert is_dataclass(config)
        assert fields(config)
    assert configurations.changed(MF.default, {}) == MF.default
