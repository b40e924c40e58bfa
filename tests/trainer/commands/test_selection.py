"""`--models`, `--exclude`, `--budget` and `--split auto`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from marquee.cli import main as marquee_command
from marquee_core.release.store import ReleaseStore
from marquee_trainer.commands.selection import parse_duration, select_models
from marquee_trainer.commands.settings import ModelSettings
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import automatic_split
from marquee_trainer.models.configurations import ConfigurationError
from marquee_trainer.models.registry import MODELS_BY_NAME

SAMPLE = "sample:users=60,items=50,ratings=1500"


def names(models: str = "", exclude: str = "") -> tuple[str, ...]:
    """Return the models that the two flags select."""
    return select_models(ModelSettings(models=models, exclude=exclude)).names


def test_models_are_selected_by_name() -> None:
    """The selection is in the order of the registry, and contains all models by default."""
    everything = tuple(MODELS_BY_NAME)
    assert names() == everything
    assert names("mf, ease") == ("ease", "mf")
    assert names(exclude="mf") == tuple(name for name in everything if name != "mf")
    assert names("mf,ease", "mf") == ("ease",)


@pytest.mark.parametrize(
    "command", [["train", "--store", "store"], ["evaluate"], ["demo"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--models=nope", "there is no model 'nope'"),
        ("--budget=5x", "--budget: '5x' is not a duration"),
        ("--config=nope.json", "nope.json: No such file"),
    ],
)
def test_arguments_are_checked_before_ratings_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], option: str, said: str
) -> None:
    """Reading may take minutes; here, the ratings could not even be read."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(marquee_command, [*command, "--data", "no-ratings.csv", option])
    assert result.exit_code == 1
    assert said in result.output


@pytest.mark.parametrize(("models", "exclude"), [("eas", ""), ("", "baseline"), ("mf", "mf")])
def test_an_invalid_selection_is_an_error(models: str, exclude: str) -> None:
    """An unknown name, or a selection without any model, is an error."""
    with pytest.raises(ConfigurationError):
        names(models, exclude)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("45", 45), (" 2 m", 120)]
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    """Durations may be in seconds, minutes and hours."""
    assert parse_duration(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "ten minutes", "-5m", "5d", "5mm"])
def test_an_invalid_duration_is_an_error(text: str) -> None:
    """The message contains the text."""
    with pytest.raises(ConfigurationError, match="--budget"):
        parse_duration(text, "--budget")


def dataset(users: list[int], times: list[int] | None) -> RatingsDataset:
    """Return ratings of different items by the given users at the given times."""
    count = len(users)
    return RatingsDataset.of(
        [f"u{user}" for user in users],
        [f"i{n}" for n in range(count)],
        np.resize(np.array([3, 4], np.float32), count),
        None if times is None else np.array(times, np.int64),
        {},
        "test",
    )


def test_the_automatic_split_is_temporal_if_possible() -> None:
    """The last ratings of each user are held out, or random ones if that is impossible."""

    def kind(users: list[int], times: list[int] | None) -> str:
        found = dataset(users, times)
        return automatic_split(found, found.file_order, 0.2)

    ten_each = [user for user in range(4) for _ in range(10)]
    assert kind(ten_each, list(range(40))) == "user-last"
    assert kind(ten_each, None) == "random"
    assert kind(ten_each, [1_000_000] * 40) == "random"
    # Every user rates everything at one time, so no rating comes after another.
    assert kind(ten_each, ten_each) == "random"
    assert kind([user for user in range(20) for _ in range(2)], list(range(40))) == "random"


def run(*arguments: str) -> str:
    """Run `marquee`, and return its output."""
    result = CliRunner().invoke(marquee_command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("refit", [True, False])
def test_train_publishes_the_selected_models(refit: bool, tmp_path: Path) -> None:
    """The release contains them and the baselines, and the output says what was measured."""
    flags = () if refit else ("--no-refit",)
    output = run(
        *("train", "--data", SAMPLE, "--models", "ease,item_cf,mf", "--exclude", "mf"),
        *("--store", str(tmp_path), *flags),
    )
    store = ReleaseStore(str(tmp_path))
    [manifest] = store.manifests()
    assert [model.name for model in manifest.models] == [
        *("item_cf", "ease", "baseline", "popularity", "recent_popularity")
    ]
    assert manifest.evaluation["split"] == "last of each user, 80/20"
    assert manifest.data.refitted is refit
    assert ("refitted on all 1,500 ratings" in output) is refit
    assert ("fit on all: ease" in output) is refit
    listed = run("releases", "--store", str(tmp_path), "list")
    assert "last of each user, 80/20" in listed
    assert f"{manifest.data.rating_count:,}" in listed


def test_a_small_budget_still_gives_a_release(tmp_path: Path) -> None:
    """With almost no time, only popularity is trained, and each omitted model is listed."""
    output = run(
        *("train", "--data", SAMPLE, "--models", "ease,mf", "--budget", "0.001s"),
        *("--store", str(tmp_path)),
    )
    for name in ("ease", "mf"):
        assert f"budget: {name} is left out" in output
    [manifest] = ReleaseStore(str(tmp_path)).manifests()
    assert {model.backend for model in manifest.models} == {"gateway"}
    users = manifest.data.user_count
    note = f"first pages are precomputed for 0 of the {users} most active users"
    assert f"budget: {note}" in output
    assert manifest.evaluation["first_pages"] == {"users": 0, "wanted": users}


def test_loading_counts_towards_the_budget() -> None:
    """The whole run is limited, not only the training."""
    limited = select_models(ModelSettings(budget="10m"))
    assert limited.after(60).seconds == 540
    assert limited.after(700).seconds == 0
    assert limited.after(60).names == limited.names
    assert select_models(ModelSettings()).after(60).seconds is None
