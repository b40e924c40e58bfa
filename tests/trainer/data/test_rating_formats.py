"""Many formats of ratings, and how each one is interpreted."""

from __future__ import annotations

from pathlib import Path

import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import LoadedRatings, load_ratings
from toy.rating_formats import CASES, PLAIN, Case, read_back


def loaded(folder: Path, case: Case) -> LoadedRatings:
    """Write the files of a case, and load them."""
    return load_ratings(case.write(folder), options=case.options)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_format_is_recognised(case: Case, tmp_path: Path) -> None:
    """Each format results in the expected rows, columns, scale, times and feedback."""
    found = loaded(tmp_path, case)
    assert read_back(found.dataset) == case.rows
    assert found.interpretation.columns == case.columns
    assert found.dataset.scale == case.scale
    assert found.dataset.feedback == case.feedback
    assert found.interpretation.times == case.times
    assert found.dataset.has_timestamps == bool(case.times)


def test_the_choice_of_columns_is_reported(tmp_path: Path) -> None:
    """The notes say which columns were chosen and why."""
    notes = loaded(tmp_path, CASES["other order"]).interpretation.notes
    expected = "user=User ID, item=Item ID, rating=Stars, time=ts (found by their names)"
    assert notes == (f"columns: {expected}",)


def test_the_number_of_repeats_is_reported(tmp_path: Path) -> None:
    """The notes have the number of repeated ratings, and say which one is used."""
    notes = loaded(tmp_path, CASES["repeats, the latest by time"]).interpretation.notes
    assert notes[1:] == ("2 ratings repeat a user and an item; the latest one is used",)


def test_repeats_can_be_made_an_error(tmp_path: Path) -> None:
    """The error names both lines, even after a blank line."""
    (tmp_path / "x.csv").write_text(PLAIN.replace("\nbob", "\n\nbob") + "ann,b2,1,1\n")
    message = r"x.csv:6: user ann rates item b2 again, after x.csv:3"
    with pytest.raises(RatingsError, match=message):
        load_ratings(str(tmp_path / "x.csv"), options=ReadOptions(on_repeat="error"))


@pytest.mark.parametrize(
    ("times", "note"),
    [
        (["43831.0", "43832.5"], "look like Excel's numbers of days"),
        (["43831", "45000"], "look like Excel's numbers of days"),
        (["0", "1600003600"], "1 of 2 times are 0, which means 1970-01-01"),
        (["01/02/2020", "11/12/2020"], "the month or the day first"),
        (["01/02/2020 10:00", "11/12/2020 10:00"], "the month or the day first"),
        (["01/02/2020", "11/13/2020"], ""),
        (["13/02/2020", "11/12/2020"], ""),
        (["1", "2"], ""),
    ],
)
def test_doubtful_times_are_noted(tmp_path: Path, times: list[str], note: str) -> None:
    """They can be read, but probably mean something else."""
    path = tmp_path / "own.csv"
    rows = [f"u{n},i{n},{n + 1},{time}" for n, time in enumerate(times)]
    path.write_text("\n".join(["user,item,rating,date", *rows]))
    notes = load_ratings(str(path)).interpretation.notes
    doubts = [text for text in notes if "times" in text or "dates" in text]
    assert len(doubts) == bool(note)
    assert note in "".join(doubts)
