"""The evaluation: figures that depend on the ratings alone, cold starts, and the report."""

from __future__ import annotations

import html.parser
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.release.ensemble import Blend, BlendPair, Ensemble
from marquee_trainer.commands.evaluate import metrics_json
from marquee_trainer.commands.progress import ProgressBar
from marquee_trainer.data.dataset import RatingsDataset, RatingsError
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import Split, random_split
from marquee_trainer.metrics.beyond_accuracy import gini
from marquee_trainer.models.configurations import packaged, read_searches
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Epoch, Fit
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.models.neural.mf import MF
from marquee_trainer.reporting.report import write_evaluation_report
from marquee_trainer.studies.cold_start import ColdStartConfig, cold_start
from marquee_trainer.studies.known_day import KnownDay
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.train import Progress, Trained, TrainingConfig, train

DIRECT = (UserCF, ItemCF, EASE)
CONFIG = TrainingConfig()


def trained_on(dataset: RatingsDataset, split: Split) -> Trained:
    """The models that take no epochs."""
    return train(dataset, split, DIRECT, CONFIG, Progress())


@pytest.fixture(scope="module")
def dataset() -> RatingsDataset:
    """A small sample."""
    return generate_sample(SampleConfig(users=150, items=120, ratings=7000), seed=1)


@pytest.fixture(scope="module")
def split(dataset: RatingsDataset) -> Split:
    """Its training and test part."""
    return random_split(dataset.file_order, 0.2, 0)


@pytest.fixture(scope="module")
def trained(dataset: RatingsDataset, split: Split) -> Trained:
    """What is trained on it."""
    return trained_on(dataset, split)


def write_files(dataset: RatingsDataset, split: Split, folder: Path, seed: int) -> None:
    """Writes training and test ratings as GroupLens does, in an order of the seed's."""
    folder.mkdir()
    users = dataset.user_ids.ids(dataset.users)
    items = dataset.catalogue.items.ids(dataset.items)
    for name, rows in (("train", split.train), ("test", split.test)):
        lines = [
            f"{users[row]}\t{items[row]}\t{dataset.ratings[row]:g}\t{dataset.timestamps[row]}"
            for row in np.random.default_rng(seed).permutation(rows).tolist()
        ]
        (folder / name).write_text("\n".join(lines) + "\n")


def test_the_figures_do_not_depend_on_the_order_of_rows(
    dataset: RatingsDataset, split: Split, tmp_path: Path
) -> None:
    """The same ratings in files of another order give the same numbers, to the last digit."""
    found = []
    for seed in (1, 2):
        write_files(dataset, split, tmp_path / str(seed), seed)
        loaded = load_ratings(
            str(tmp_path / str(seed)),
            train_file="train",
            test_file=str(tmp_path / str(seed) / "test"),
        )
        assert loaded.split is not None
        models = (*DIRECT, lambda: MF().with_epochs(2))
        result = train(loaded.dataset, loaded.split, models, CONFIG, Progress())
        found.append(metrics_json(result.evaluation))
    assert found[0] == found[1]


def test_the_json_names_every_model_and_figure(trained: Trained) -> None:
    """Models of stars have errors, all have rankings; nothing is null or infinite."""
    models = json.loads(metrics_json(trained.evaluation))["models"]
    floor = {"baseline", "popularity", "recent_popularity"}
    assert set(models) == {*floor, "user_cf", "item_cf", "ease", "ensemble"}
    for name in ("user_cf", "item_cf", "ensemble"):
        assert {"train_mse", "test_mse", "test_rmse", "test_mae", "ndcg@10"} <= set(models[name])
        assert models[name]["test_rmse"] == pytest.approx(models[name]["test_mse"] ** 0.5)
    assert "test_mse" not in models["ease"]
    assert all(0 <= row["gini@10"] <= 1 for row in models.values())
    assert all(0 <= row["debiased_ndcg@10"] <= 1 for row in models.values())


def test_a_user_who_gives_more_is_served_better(dataset: RatingsDataset) -> None:
    """By the ensemble, and as well as if the ratings had been trained on."""
    found = cold_start(
        dataset,
        dataset.file_order,
        trained_on,
        ColdStartConfig(user_fraction=0.3),
        CONFIG.relevant_stars,
        0,
    )
    assert found.given == (0, 1, 3, 5, 10, 20)
    curve = found.mse[ENSEMBLE]
    assert curve[-1] < curve[0]
    assert curve[4] == pytest.approx(found.retrained_mse[ENSEMBLE], rel=0.05)
    # Nothing given is answered alike by all: by the baseline of a user without ratings.
    assert found.mse["item_cf"][0] == pytest.approx(found.mse["user_cf"][0])
    with pytest.raises(RatingsError, match="no user has"):
        cold_start(dataset, dataset.file_order, trained_on, ColdStartConfig(least_test=500), 4.0, 0)


def test_who_gives_nothing_is_ranked_for_by_the_gateway_alone(dataset: RatingsDataset) -> None:
    """As the gateway does it, without asking a backend."""

    def trained_otherwise(dataset: RatingsDataset, split: Split) -> Trained:
        trained = trained_on(dataset, split)
        rating = Blend({"baseline": 1.0}, 0.0)
        pairs = {
            backends: BlendPair(rating, Blend({"ease" if backends else "popularity": 1.0}, 0.0))
            for backends in trained.ensemble.by_backends
        }
        return replace(trained, ensemble=Ensemble(pairs))

    config = ColdStartConfig(user_fraction=0.3, given=(0, 10))
    found = cold_start(dataset, dataset.file_order, trained_otherwise, config, 4.0, 0)
    assert found.ndcg[ENSEMBLE] == (found.ndcg["popularity"][0], found.ndcg["ease"][1])


class Terminal(io.StringIO):
    """What stands for a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class Links(html.parser.HTMLParser):
    """Gathers what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes sources and links."""
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_report_stands_alone_with_its_plots_beside_it(
    dataset: RatingsDataset, split: Split, trained: Trained, tmp_path: Path
) -> None:
    """Every plot is inside the page and a PNG of its own; every model is in its tables."""
    curve = (Epoch(1.0, 1.1), Epoch(0.9, 1.0), Epoch(0.8, 1.05))
    trained = replace(trained, fits={**trained.fits, "mf": Fit(curve, 2)})
    found = cold_start(
        dataset, dataset.file_order, trained_on, ColdStartConfig(), CONFIG.relevant_stars, 0
    )
    row = {"test_mse": 0.5, "test_rmse": 0.7071, "test_mae": 0.6}
    known_day = KnownDay({ENSEMBLE: row}, trained.evaluation.predictions[ENSEMBLE])
    file = packaged(80_000)
    assert file is not None
    searches = read_searches(file)
    page = write_evaluation_report(
        tmp_path, dataset, split, trained, CONFIG, found, known_day, searches
    )
    text = page.read_text()
    links = Links()
    links.feed(text)
    plots = {path.stem for path in tmp_path.glob("*.png")}
    assert plots >= {"learning", "mse", "error-by-count", "calibration", "weights", "ranking"}
    assert "cold-start" in plots
    assert len(links.sources) == len(plots)
    assert all(source.startswith("data:image/png;base64,") for source in links.sources)
    own = trained.evaluation.metrics[ENSEMBLE]["test_mse"]
    change = f"{0.5 / own - 1:+.2%}"
    for shown in ("user_cf", "4.4829", f"{own:.4f}", "0.7071", change, "audience_dropout"):
        assert shown in text
    assert f"of items were found in {trained.seconds['item_cf']:.1f} s" in text
    assert f"({searches.split})" in text


def test_each_step_of_training_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts epochs, says the error, and is complete when a fit ends early."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar() as bar:
        heard = bar.progress()
        heard.on_step("fit mf", 5)
        heard.on_epoch(Epoch(0.9, 0.8123))
        heard.on_epoch(Epoch(0.8, 0.8111))
        heard.on_step("evaluate", 0)
    lines = terminal.getvalue().replace("\n", "\r").split("\r")
    last = [line for line in lines if line.startswith("fit mf")][-1]
    assert "2/2" in last
    assert "MSE 0.8111" in last
    assert any(line.startswith("evaluate") and "1/1" in line for line in lines)


def test_without_a_terminal_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs are not filled with bars."""
    with ProgressBar() as bar:
        bar.progress().on_step("fit mf", 5)
        bar.progress().on_epoch(Epoch(0.9, None))
    assert capsys.readouterr().err == "  fit mf\n"


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_the_gini_coefficient_is_half_the_relative_mean_difference(amounts: list[int]) -> None:
    """By its definition over all pairs; without exposure there is no unfairness."""
    values = np.array(amounts, dtype=np.int64)
    differences = np.abs(values[:, None] - values[None, :]).mean()
    expected = differences / (2 * values.mean()) if values.sum() else 0.0
    assert gini(values) == pytest.approx(expected)
