"""The report: one self-contained page, with a section for each study that was made."""

from __future__ import annotations

import html.parser
from dataclasses import replace
from pathlib import Path

import pytest

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import packaged, read_searches
from marquee_trainer.models.model import Epoch, Fit
from marquee_trainer.reporting.report import write_evaluation_report
from marquee_trainer.reporting.significance import ablation
from marquee_trainer.studies.cold_start import ColdStart
from marquee_trainer.studies.known_day import KnownDay
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import Trained

CONFIG = TrainingConfig()


class Links(html.parser.HTMLParser):
    """Gathers the sources and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Adds the sources and links of a tag."""
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_report_stands_alone_with_its_plots_beside_it(
    small_dataset: RatingsDataset, small_split: Split, small_trained: Trained, tmp_path: Path
) -> None:
    """Every plot is inside the page and a PNG of its own; every model is in its tables."""
    curve = (Epoch(1.0, 1.1), Epoch(0.9, 1.0), Epoch(0.8, 1.05))
    trained = replace(small_trained, fits={**small_trained.fits, "mf": Fit(curve, 2)})
    curves = dict.fromkeys(("user_cf", ENSEMBLE), (1.0, 0.9))
    retrained = {"user_cf": 0.8, ENSEMBLE: 0.75}
    new_users = ColdStart(12, (0, 10), curves, curves, 10, retrained)
    row = {"test_mse": 0.5, "test_rmse": 0.7071, "test_mae": 0.6}
    known_day = KnownDay({ENSEMBLE: row}, trained.evaluation.predictions[ENSEMBLE])
    file = packaged(80_000)
    assert file is not None
    searches = read_searches(file)
    page = write_evaluation_report(
        tmp_path, small_dataset, small_split, trained, CONFIG, new_users, known_day, searches
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
    # 0.9 folded in against 0.75 retrained.
    shown = ("user_cf", f"{own:.4f}", "0.7071", change, "audience_dropout", "12 users", "+20.00%")
    for words in shown:
        assert words in text
    assert f"of items were found in {trained.seconds['item_cf']:.1f} s" in text
    assert f"({searches.split})" in text


def test_the_ablation_learns_a_blend_without_each_rating_predictor(
    small_dataset: RatingsDataset, small_split: Split, small_trained: Trained
) -> None:
    """The full blend has the ensemble's test MSE; rankers are not part of the rating blend."""
    measured = ablation(
        small_trained.validation,
        small_trained.evaluation.predictions,
        small_dataset.ratings[small_split.test],
        small_dataset.scale,
        CONFIG.blend.rating_ridge,
    )
    mse = small_trained.evaluation.metrics[ENSEMBLE]["test_mse"]
    assert measured.full == pytest.approx(mse, rel=1e-5)
    assert set(measured.without) == {"user_cf", "item_cf"}
