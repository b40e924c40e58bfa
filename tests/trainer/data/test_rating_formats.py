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


def test_the_format_of_the_netflix_prize_is_read(tmp_path: Path) -> None:
    """A line with the film is followed by its ratings, in one file or in a file for each film."""
    first, second = "1:\n7,3,2005-09-06\n8,5,2005-05-13\n", "2:\n7,4,2005-10-19\n"
    expected = [("7", "1", 3.0), ("7", "2", 4.0), ("8", "1", 5.0)]
    (tmp_path / "combined.txt").write_text(first + second)
    found = load_ratings(str(tmp_path / "combined.txt"))
    assert sorted(row[:3] for row in read_back(found.dataset)) == expected
    assert found.dataset.has_timestamps
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "mv_1.txt").write_text(first)
    (tmp_path / "films" / "mv_2.txt").write_text(second)
    found = load_ratings(str(tmp_path / "films"))
    assert sorted(row[:3] for row in read_back(found.dataset)) == expected


def test_a_malformed_line_of_the_netflix_prize_is_named(tmp_path: Path) -> None:
    """By its line in the file, in which films have lines too."""
    path = tmp_path / "combined.txt"
    path.write_text("1:\n7,3,2005-09-06\n2:\n7,x,2005-10-19\n8,4,2005-10-19\n9\n")
    with pytest.raises(RatingsError) as raised:
        load_ratings(str(path))
    assert "combined.txt:4: column rating: 'x' is not a rating" in str(raised.value)
    assert "combined.txt:6: column rating: '' is not a rating" in str(raised.value)
