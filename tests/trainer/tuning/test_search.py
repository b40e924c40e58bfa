"""`marquee tune`: the search, its files, and training with the configurations found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.hyperparameters import hyperparameters
from marquee_core.scorers.ials import IALSConfig
from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_trainer.commands import cli
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split, random_split
from marquee_trainer.metrics.ranking_metrics import RankingTask, ranking_metrics
from marquee_trainer.models.configurations import (
    ConfigurationError,
    model_factories,
    packaged_configuration,
    read_parameters,
    value_of,
    with_parameters,
)
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.model import Training, score_known
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.mf import MF, MFConfig
from marquee_trainer.models.registry import MODELS, MODELS_BY_NAME
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import interactions_of, release_data, validation_split
from marquee_trainer.tuning.search import tune
from marquee_trainer.tuning.spaces import SPACES, Range
from marquee_trainer.tuning.trials import Search, Trial
from marquee_trainer.tuning.tuned_file import TunedFile


@pytest.fixture(scope="module")
def ratings() -> tuple[RatingsDataset, Split]:
    """A small data set and a split of it."""
    dataset = generate_sample(SampleConfig(users=60, items=50, ratings=1500), seed=3)
    return dataset, random_split(dataset.file_order, 0.2, 0)


@given(
    st.floats(0.01, 10.0),
    st.floats(1.1, 100.0),
    st.booleans(),
    st.floats(0.0, 1.0),
    st.floats(0.001, 5000.0),
)
def test_values_stay_within_their_range(
    low: float, factor: float, log: bool, place: float, start: float
) -> None:
    """Tried values are within the range up to rounding, and the start is always possible."""
    values = Range(low, low * factor, log=log)
    drawn = low * (1 + (factor - 1) * place)
    assert low * 0.995 <= values.rounded(drawn) <= low * factor * 1.005
    distribution = values.distribution(start)
    near = values.near(start, 0.3, np.random.default_rng(0))
    assert values.low <= near <= values.high
    for value in (low, drawn, start, near):
        assert distribution._contains(distribution.to_internal_repr(value))


def test_a_start_of_zero_on_a_logarithmic_scale_becomes_the_minimum() -> None:
    """A start of 0 that is searched on a logarithmic scale becomes the minimum of the range."""
    assert Range(0.5, 8.0).start(0.0) == 0.5
    assert Range(0.5, 8.0).start(0.1) == 0.1
    assert Range(0.5, 8.0, log=False).start(0.0) == 0.0


def test_every_search_space_fits_its_models_configuration() -> None:
    """Both ends of every range are valid, and the default is within the range."""
    for name, space in SPACES.items():
        config = MODELS_BY_NAME[name].config_type()
        for parameter, values in space.items():
            for end in (values.low, values.high):
                value = round(end) if values.whole else end
                assert value_of(with_parameters(config, {parameter: value}), parameter) == value
            default = value_of(config, parameter)
            assert values.low <= default <= values.high, (name, parameter)


def test_a_search_never_ends_above_its_start(ratings: tuple[RatingsDataset, Split]) -> None:
    """The first trial is the starting configuration, and the best trial has the lowest loss."""
    dataset, split = ratings
    reported: list[tuple[str, Trial]] = []

    def on_trial(search: Search) -> None:
        reported.append((search.model, search.trials[-1]))

    start = {"item_cf": {"shrinkage": 11.0}}
    searches = tune(
        dataset,
        split,
        ["item_cf", "ials"],
        0.02,
        0,
        start,
        on_trial,
    )
    assert [search.model for search in searches] == ["item_cf", "ials"]
    default = ItemCFConfig()
    expected = {name: value_of(default, name) for name in SPACES["item_cf"]}
    assert searches[0].trials[0].parameters == {**expected, "shrinkage": 11.0}
    assert reported == [(search.model, trial) for search in searches for trial in search.trials]
    for search in searches:
        assert search.best.loss == min(trial.loss for trial in search.trials)
        for trial in search.trials:
            assert set(trial.parameters) == set(SPACES[search.model])


def test_a_search_reads_no_test_ratings(ratings: tuple[RatingsDataset, Split]) -> None:
    """The test ratings do not affect the search."""
    dataset, split = ratings
    blind = Split(split.train, split.test[:1], split.description)
    for part in (split, blind):
        (search,) = tune(dataset, part, ["item_cf"], 0.0, 0, {}, lambda _: None)
        assert len(search.trials) == 1
        assert search.trials[0].loss == pytest.approx(
            tune(dataset, split, ["item_cf"], 0.0, 0, {}, lambda _: None)[0].trials[0].loss
        )


def test_a_loss_is_that_of_the_hyperparameters_of_the_trial(
    ratings: tuple[RatingsDataset, Split],
) -> None:
    """A model that can choose hyperparameters on validation ratings does not do so in a search."""
    dataset, split = ratings
    start = {"ials": {"regularisation": 0.03, "unobserved_weight": 1.5}}
    (search,) = tune(dataset, split, ["ials"], 0.0, 0, start, lambda _: None)
    trial = search.trials[0]
    config = TrainingConfig(seed=0)
    inner = validation_split(dataset, split, config)
    data = release_data(dataset, inner.train, config.baseline)
    model = IALS(with_parameters(IALSConfig(), trial.parameters))
    model.fit(Training(data))
    task = RankingTask.of(data.matrix, interactions_of(dataset, inner.test), config.relevant_stars)
    metrics = ranking_metrics(task, score_known(model.scorer, data), 10)
    assert trial.loss == pytest.approx(1.0 - metrics.ndcg)


def test_training_uses_the_configurations_that_a_search_wrote(
    ratings: tuple[RatingsDataset, Split], tmp_path: Path
) -> None:
    """The models have the written hyperparameters, and other models in the file are kept."""
    dataset, split = ratings
    path = tmp_path / "tuned.json"
    found = Search("mf", [Trial({}, 0.9, 1.0), Trial({"l2": 0.05, "fold_in.ridge": 2.0}, 0.8, 1.0)])
    TunedFile(path, dataset, split, 0).write([found])
    other = Search("ials", [Trial({"factors": 7}, 0.5, 1.0)])
    TunedFile(path, dataset, split, 0).write([other])
    made = {model().name: model() for model in model_factories(len(split.train), str(path))}
    assert list(made) == list(MODELS_BY_NAME)
    mf, ials, item_cf = made["mf"], made["ials"], made["item_cf"]
    assert isinstance(mf, MF)
    assert isinstance(ials, IALS)
    assert mf.parameters["l2"] == 0.05
    assert mf.parameters["fold_in"] == {
        "ridge": 2.0,
        "ridge_per_rating": MFConfig().fold_in.ridge_per_rating,
        "bias_ridge": MFConfig().fold_in.bias_ridge,
    }
    assert ials.parameters["factors"] == 7
    assert item_cf.parameters == ItemCF().parameters
    written = json.loads(path.read_text())
    assert written["data"]["training_fingerprint"] == dataset.fingerprint(split.train)
    assert written["models"]["mf"]["validation_loss"] == 0.8
    assert written["models"]["mf"]["trials"] == 2
    TunedFile(path, dataset, split, 0).write([found])
    assert json.loads(path.read_text())["models"]["mf"]["trials"] == 4


def test_a_packaged_file_is_used_for_data_of_similar_size() -> None:
    """The file for the most similar size is used, unchanged for similar sizes."""
    path = packaged_configuration(80_000).path
    assert path.name == "ml-100k.json"
    assert packaged_configuration(5_000).path == packaged_configuration(120_000).path == path
    assert (
        packaged_configuration(900_000).path.name
        == packaged_configuration(25_000_000).path.name
        == "ml-1m.json"
    )
    for name, parameters in read_parameters(path).items():
        assert set(parameters) <= set(SPACES[name])
    tuned = {model().name: model().parameters for model in model_factories(80_000)}
    assert tuned == {model().name: model().parameters for model in model_factories(120_000)}
    assert tuned != {model.name: model().parameters for model in MODELS}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "tuned.json: not valid JSON: Expecting"),
        ('{"models": {"mf": {}}}', "tuned.json: 'parameters' is missing"),
        ('{"models": {"none": {"parameters": {}}}}', "no model 'none'"),
        ('{"models": {"mf": {"parameters": {"l3": 1}}}}', "no hyperparameter 'l3'"),
        ('{"models": {"mf": {"parameters": {"l2": "much"}}}}', "not a number"),
        ('{"models": {"mf": {"parameters": {"factors": 1.5}}}}', "not an integer"),
        ('{"models": {"ials": {"parameters": {"sweeps": 0}}}}', "sweeps"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, match: str) -> None:
    """The error says what is wrong, and no model is created."""
    path = tmp_path / "tuned.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=match):
        model_factories(100, str(path))


def test_the_command_prints_trials_and_adds_to_its_file(tmp_path: Path) -> None:
    """The command prints a line for each trial, and writes a file for `train --config`."""
    path = tmp_path / "tuned.json"
    runner = CliRunner()
    arguments = ["--models", "item_cf", "--minutes", "0", "--out", str(path)]
    result = runner.invoke(cli.tune, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("item_cf 0.")
    assert list(read_parameters(path)) == ["item_cf"]
    unknown = runner.invoke(cli.tune, ["--models", "x", "--minutes", "0", "--out", str(path)])
    assert unknown.exit_code != 0
    assert "there is no model 'x' with a search space" in unknown.output


def test_every_model_has_hyperparameters() -> None:
    """Every configuration has numeric fields, and changing none gives an equal configuration."""
    for model_class in MODELS:
        config = model_class.config_type()
        assert hyperparameters(type(config))
        assert with_parameters(config, {}) == config


def test_former_names_of_hyperparameters_are_read(tmp_path: Path) -> None:
    """Files written before hyperparameters were renamed configure the same models."""
    path = tmp_path / "old.json"
    models: dict[str, dict[str, dict[str, float]]] = {
        "mf": {"parameters": {"dimensions": 24, "fold_in.ridge": 2.0}},
        "ials": {"parameters": {"dimensions": 48}},
        "bayesian_mf": {"parameters": {"rank": 12}},
        "deep_mf": {"parameters": {"dimensions": 20, "set_dimensions": 8}},
        "autorec": {"parameters": {"hidden": 64}},
    }
    path.write_text(json.dumps({"models": models}))
    made = {
        model.name: model.parameters for model in (make() for make in model_factories(9, str(path)))
    }
    assert made["mf"]["factors"] == 24
    assert made["ials"]["factors"] == 48
    assert made["bayesian_mf"]["factors"] == 12
    assert (made["deep_mf"]["factors"], made["deep_mf"]["set_factors"]) == (20, 8)
    assert made["autorec"]["hidden_units"] == 64
    assert read_parameters(path)["mf"] == {"factors": 24, "fold_in.ridge": 2.0}


def test_interdependent_values_can_be_changed_together() -> None:
    """A configuration is validated after all changes rather than after each one."""
    config = with_parameters(BayesianMFConfig(), {"sweeps": 20, "burn_in": 4, "samples": 8})
    assert (config.sweeps, config.burn_in, config.samples) == (20, 4, 8)
