"""The trainer as a library: its public names, and the way from ratings to a release."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import marquee_trainer as trainer
from locations import PROJECT
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.ease import EASEConfig
from marquee_trainer.data.scale import Feedback
from marquee_trainer.models.linear.ease import EASE
from toy.waiting import PROCESS_S

# The names that users rely on. Removing one breaks their programs.
PUBLIC = set(
    """
    ConfigurationError Progress RatingScale RatingsDataset RatingsError ReadOptions ReleaseStore
    Split TrainingRun evaluate from_frame items_frame load publish split to_frame train
    """.split()  # noqa: SIM905 - a list of 17 strings reads worse
)


def test_the_public_names_are_pinned() -> None:
    """`__all__` has exactly the expected names, and each of them exists."""
    assert set(trainer.__all__) == set(dir(trainer)) == PUBLIC
    for name in trainer.__all__:
        assert getattr(trainer, name) is not None
    with pytest.raises(AttributeError, match="lode"):
        _ = trainer.lode


def test_importing_the_trainer_imports_no_heavy_packages() -> None:
    """It imports neither NumPy nor anything heavier, and loading ratings does not import Keras."""
    code = "import marquee_trainer, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=PROCESS_S
    )
    heavy = {"numpy", "polars", "pyarrow", "scipy", "tensorflow", "keras", "optuna", "click"}
    assert not heavy & set(result.stdout.split())


def test_a_data_frame_becomes_a_release(tmp_path: Path) -> None:
    """Load, split, train, evaluate, publish: production has the release that was trained."""
    sample = trainer.load("sample:users=60,items=50,ratings=1400")
    ratings = trainer.from_frame(trainer.to_frame(sample), trainer.items_frame(sample))
    assert ratings.fingerprint() == sample.fingerprint()
    split = trainer.split(ratings)
    assert split.kind == "user-last"
    own_model = EASE(EASEConfig(regularisation=33.0))
    run = trainer.train(ratings, split, ["item_cf", lambda: own_model])
    table = trainer.evaluate(run)
    assert table["model"][-1] == "ensemble"
    assert {"item_cf", "ease", "popularity"} < set(table["model"])
    metrics = run.trained.evaluation.metrics
    for row in table.iter_rows(named=True):
        for name, value in row.items():
            if name != "model":
                assert value == metrics[row["model"]].get(name)
    manifest = trainer.publish(run, str(tmp_path / "store"))
    store = ReleaseStore(str(tmp_path / "store"))
    production = store.production()
    assert production is not None
    assert production.release_id == manifest.release_id
    assert {"item_cf", "ease"} <= {model.name for model in manifest.models}
    other = ReleaseStore(str(tmp_path / "other"))
    assert manifest.data.refitted
    assert manifest.data.rating_count == len(ratings)
    unpromoted = trainer.publish(run, other, promote=False, refit=False)
    assert unpromoted.data.rating_count == len(split.train)
    assert other.ids() == [unpromoted.release_id]
    assert other.production() is None


def test_an_unknown_model_is_reported_before_anything_is_fitted() -> None:
    """The error lists the available models."""
    ratings = trainer.load("sample:users=60,items=50,ratings=1400")
    split = trainer.split(ratings)
    with pytest.raises(trainer.ConfigurationError, match=r"'eese'; the models are .*ease"):
        trainer.train(ratings, split, ["eese"])


def test_the_interpretation_of_a_frame_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The detected columns are logged."""
    frame = pl.DataFrame({"uid": ["a", "b"], "film": ["x", "y"], "stars": [4, 2]})
    with caplog.at_level(logging.INFO, "marquee_trainer"):
        ratings = trainer.from_frame(frame)
    assert "user=uid, item=film, rating=stars" in caplog.text
    assert trainer.split(ratings).kind == "random"


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("aäbcd"), st.sampled_from(["007", "x y", "ß", "7"])),
        st.tuples(st.sampled_from([0.5, 1.0, 3.5, 5.0]), st.integers(0, 2_000_000_000)),
        min_size=2,
    ),
    st.booleans(),
    st.booleans(),
)
def test_a_frame_round_trip_preserves_the_data_set(
    rows: dict[tuple[str, str], tuple[float, int]], timed: bool, implicit: bool
) -> None:
    """Ids, ratings, times, the kind of feedback and the order are preserved."""
    strength = "count" if implicit else "rating"
    frame = pl.DataFrame(
        {
            "user": [user for user, _ in rows],
            "item": [item for _, item in rows],
            strength: [stars for stars, _ in rows.values()],
        }
    )
    if timed:
        frame = frame.with_columns(timestamp=pl.Series([time for _, time in rows.values()]))
    first = trainer.from_frame(frame)
    second = trainer.from_frame(trainer.to_frame(first).to_arrow())
    assert second.fingerprint() == first.fingerprint()
    assert np.array_equal(second.file_order, first.file_order)
    assert second.feedback is first.feedback
    assert (second.feedback is Feedback.IMPLICIT) >= implicit
    assert second.has_timestamps == timed
    part = trainer.to_frame(first, first.file_order[:1])
    assert part["user"][0] == next(iter(rows))[0]


class InterchangeFrame:
    """A frame that supports only the data-frame interchange protocol."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._table = frame.to_arrow()

    def __dataframe__(self, **options: bool) -> object:
        return self._table.__dataframe__(**options)


def test_any_frame_with_the_interchange_protocol_is_read() -> None:
    """`__dataframe__` suffices, and other objects are refused."""
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [4.0, 2.5]})
    expected = trainer.from_frame(frame).fingerprint()
    assert trainer.from_frame(InterchangeFrame(frame)).fingerprint() == expected
    with pytest.raises(trainer.RatingsError, match="not dict"):
        trainer.from_frame({"user": ["a"]})


def test_the_readme_uses_public_names_in_ten_lines() -> None:
    """The example is short, and uses nothing that a program could not rely on."""
    readme = (PROJECT / "trainer/README.md").read_text()
    (block,) = re.findall(r"^```py\n(import marquee_trainer.*?)^```", readme, re.M | re.S)
    assert len(block.splitlines()) <= 10
    names = set(re.findall(r"\btrainer\.(\w+)", block))
    assert {"load", "split", "train", "evaluate", "publish"} <= names <= PUBLIC
