"""The report: one self-contained page with a section for each study."""

from __future__ import annotations

import html.parser
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from marquee_core.output import Output
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import Searches, SearchRecord
from marquee_trainer.models.model import Fit
from marquee_trainer.reporting.report import write_evaluation_report
from marquee_trainer.reporting.sections.search import search_section
from marquee_trainer.reporting.significance import ablation
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import TrainingResult

CONFIG = TrainingConfig()
MEGABYTE = 1_000_000
CHARTS = {
    *("ranking", "mse", "weights-rating", "weights-ranking", "error-by-user", "error-by-item"),
    *("calibration", "learning-mf", "cold-start-mse", "cold-start-ndcg"),
}


class Page(html.parser.HTMLParser):
    """The parts of a page that tests examine: links, ids, charts and text."""

    def __init__(self, text: str) -> None:
        """Parse a page."""
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the tag, its id and what it links to."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        self.words += data


def test_the_report_is_self_contained(report: Path) -> None:
    """The page links only to its own sections, and is small enough to send by mail."""
    text = report.read_text()
    page = Page(text)
    assert page.links
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert "@import" not in text
    assert "url(" not in text
    assert report.stat().st_size < 2 * MEGABYTE


def test_each_chart_is_a_separate_file(report: Path) -> None:
    """Every chart has a title, a description and its numbers, and its file is well-formed SVG."""
    files = {path.stem: path for path in report.parent.glob("*.svg")}
    assert set(files) == CHARTS
    for path in files.values():
        root = ElementTree.fromstring(path.read_text())  # noqa: S314 - written by us
        names = [element.tag.rpartition("}")[2] for element in root.iter()]
        assert {"title", "desc", "text"} <= set(names)
    page = Page(report.read_text())
    assert page.tags.count("svg") == page.tags.count("figure") == len(CHARTS)
    assert page.tags.count("details") == len(CHARTS)


def test_the_summary_has_the_main_results(
    report: Path, small_trained: TrainingResult, small_dataset: RatingsDataset
) -> None:
    """The summary comes first, with the gain of the ensemble and its interval."""
    text = Page(report.read_text()).words
    summary = text[: text.index("Means over")]
    metrics = small_trained.evaluation.metrics
    for words in (
        f"{metrics[ENSEMBLE]['ndcg@10']:.3f}",
        f"MSE {metrics[ENSEMBLE]['test_mse']:.4f} stars²",
        "Gain over the best single model",
        f"{len(small_dataset):,} ratings",
        "random 80/20",
        "marquee tune",
        "--split user-last",
    ):
        assert words in summary


def test_each_study_has_a_section(report: Path, small_trained: TrainingResult) -> None:
    """Every model is in the tables, and all studies are shown."""
    text = Page(report.read_text()).words
    own = small_trained.evaluation.metrics[ENSEMBLE]["test_mse"]
    change = f"{0.5 / own - 1:+.2%}".replace("-", "−")
    # 0.9 folded in, compared with 0.75 retrained.
    shown = ("user_cf", f"{own:.4f}", "0.7071", change, "audience_dropout", "12 users", "+20.00%")
    for words in shown:
        assert words in text
    assert f"took {small_trained.seconds['item_cf']:.1f} s for items" in text


def test_details_of_a_search_on_other_data_are_omitted() -> None:
    """Only its result is shown, since its losses and split do not apply to this data."""
    record = SearchRecord({"rank": 8.0}, 12, 0.91, 0.85)
    searches = Searches("MovieLens 100K, random 80/20", "fingerprint", {"mf": record})
    own, other = search_section(searches, True), search_section(searches, False)
    assert "0.8500" in own.rows[0]
    assert other.rows == [["mf", "rank 8"]]
    assert "MovieLens" not in other.text


def test_a_report_without_rating_predictors(
    small_dataset: RatingsDataset, small_split: Split, small_trained: TrainingResult, tmp_path: Path
) -> None:
    """Rankers, as for implicit feedback, have no errors of predicted stars."""
    rankers = [model for model in small_trained.models if model.scorer.output is not Output.STARS]
    assert rankers
    evaluation = replace(
        small_trained.evaluation,
        predictions={},
        metrics={
            name: {
                key: value for key, value in row.items() if not key.startswith(("test", "train"))
            }
            for name, row in small_trained.evaluation.metrics.items()
        },
    )
    trained = replace(
        small_trained, models=tuple(rankers), evaluation=evaluation, fits={"ease": Fit()}
    )
    page = write_evaluation_report(tmp_path, small_dataset, small_split, trained, CONFIG)
    text = Page(page.read_text()).words
    assert "NDCG@10" in text
    assert "MSE" not in text
    assert {path.stem for path in tmp_path.glob("*.svg")} == {"ranking"}


def test_names_are_escaped(
    small_dataset: RatingsDataset, small_split: Split, small_trained: TrainingResult, tmp_path: Path
) -> None:
    """The name of a data set may contain any character."""
    dataset = replace(small_dataset, source="<script>alert('&')</script>")
    page = write_evaluation_report(tmp_path, dataset, small_split, small_trained, CONFIG)
    assert Page(page.read_text()).tags.count("script") == 1
    assert "alert('&')" in Page(page.read_text()).words


def test_the_ablation_learns_a_blend_without_each_rating_predictor(
    small_dataset: RatingsDataset, small_split: Split, small_trained: TrainingResult
) -> None:
    """The full blend has the test MSE of the ensemble, and rankers are not in the rating blend."""
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
