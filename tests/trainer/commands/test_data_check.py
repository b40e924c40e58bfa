"""`marquee data check`: its output, and the errors that it reports in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from marquee_trainer.commands.cli import data


def check(*arguments: str) -> tuple[int, str]:
    """Return the exit code and the output of the command."""
    result = CliRunner().invoke(data, ["check", *arguments])
    return result.exit_code, result.output


def test_the_interpretation_of_the_data_is_shown(tmp_path: Path) -> None:
    """Columns, scale, counts, density, distribution, first rows and notes are shown."""
    rows = ["User ID;Film;Stars;Date", "ann;b1;7;2020-01-02", "ann;b2;10;2020-01-03"]
    (tmp_path / "x.csv").write_text(
        "\n".join([*rows, "bob;b1;1;2020-01-04", "bob;b1;2;2020-01-05"])
    )
    code, output = check(str(tmp_path / "x.csv"))
    assert code == 0
    for text in (
        "feedback          explicit",
        "scale             1 to 10, in steps of 1",
        "times             2020-01-02 to 2020-01-05, written as ISO 8601",
        "ratings           3",
        "users             2",
        "items             2 rated",
        "density           75.000% of 4 cells",
        "column of user    User ID",
        "column of rating  Stars",
        "1 rating repeats a user and an item; the latest one is used",
    ):
        assert text in output
    assert "ann   b1    b1          7  2020-01-02 00:00:00" in output


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([f"u{n},i{n},{n % 5 + 1}" for n in range(10)], "10 ratings are too few"),
        ([f"u,i{n},{n % 5 + 1}" for n in range(40)], "are of one user"),
        ([f"u{n},i,{n % 5 + 1}" for n in range(40)], "are of one item"),
        (
            [f"u{n % 9},i{n},{n % 5 + 1},2150-01-02" for n in range(60)],
            "times: 60 of 60 ratings are from the future",
        ),
    ],
)
def test_ratings_that_training_would_refuse_are_named(
    tmp_path: Path, rows: list[str], reason: str
) -> None:
    """By the checks of training itself."""
    header = "user,item,rating,date"[: -5 if rows[0].count(",") == 2 else None]
    (tmp_path / "x.csv").write_text("\n".join([header, *rows]))
    code, output = check(str(tmp_path / "x.csv"))
    assert code == 0
    _, _, refusals = output.partition("`marquee train` would refuse these ratings")
    assert reason in refusals


def test_ratings_that_can_be_trained_on_are_not_refused(tmp_path: Path) -> None:
    """The refusals then do not appear at all."""
    rows = [f"u{n % 9},i{n % 10},{n % 5 + 1}" for n in range(90)]
    (tmp_path / "x.csv").write_text("\n".join(["user,item,rating", *rows]))
    assert "would refuse" not in check(str(tmp_path / "x.csv"))[1]


def test_read_options_are_applied(tmp_path: Path) -> None:
    """Columns, scale, repeats and items can be set as in training."""
    (tmp_path / "x.csv").write_text("a,b,c\nann,1,3\nann,1,5\nbob,2,4\n")
    (tmp_path / "items.csv").write_text("id,title,colour\n1,Heat,red\n2,Ran,\n3,Up,\n")
    code, output = check(
        str(tmp_path / "x.csv"),
        *("--columns", "user=a,item=b,rating=c"),
        *("--scale", "0:7"),
        *("--on-repeat", "max"),
        *("--items", str(tmp_path / "items.csv")),
        *("--rows", "1"),
    )
    assert code == 0
    assert "0 to 7, in steps of 1" in output
    assert "2 rated, 1 unrated" in output
    assert "attributes        colour" in output
    assert "Heat" in output


def test_implicit_feedback_is_recognised(tmp_path: Path) -> None:
    """Interactions without ratings are not an error."""
    (tmp_path / "plays.csv").write_text("user,artist,plays\nann,x,12\nbob,x,1\n")
    code, output = check(str(tmp_path / "plays.csv"))
    assert code == 0
    assert "feedback         implicit" in output
    assert "this is implicit feedback" in output


def test_suspicious_ids_are_reported(tmp_path: Path) -> None:
    """Spaces and decimal points in ids are usually mistakes in the file."""
    (tmp_path / "x.csv").write_text('user,item,rating\n"ann ",1.0,3\nann,2.0,5\n')
    _, output = check(str(tmp_path / "x.csv"))
    assert "1 user ids begin or end with a space" in output
    assert "all item ids are whole numbers with a decimal point, such as 1.0" in output


def test_generated_samples_are_described() -> None:
    """Any source can be checked, not only files."""
    code, output = check("sample:users=50,items=60,ratings=1000")
    assert code == 0
    assert "ratings      1,000" in output


def test_an_error_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    """Malformed rows and malformed options are expected errors."""
    (tmp_path / "x.csv").write_text("user,item,rating\nann,1,good\n")
    code, output = check(str(tmp_path / "x.csv"))
    assert code == 1
    assert "x.csv:2: column rating: 'good' is not a rating" in output
    assert check(str(tmp_path / "x.csv"), "--scale", "5")[0] == 1
    assert check(str(tmp_path / "x.csv"), "--columns", "who=1")[0] == 1
    assert "Traceback" not in output
