"""Text tables of the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee.cli import table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Columns are aligned as requested, and no line ends in spaces."""
    text = table.render(("#", "title"), [("1", "Alien"), ("10", "Brazil")], "><")
    assert text.splitlines() == [
        " #  title",
        "──  ──────",
        " 1  Alien",
        "10  Brazil",
    ]


def test_wide_and_combining_characters_keep_columns_straight() -> None:
    """Columns are aligned by their width on a terminal, not by the number of code points."""
    text = table.render(("title", "year"), [("七人の侍", "1954"), ("Ame\u0301lie", "2001")], "<<")
    assert text.splitlines() == [
        "title     year",
        "────────  ────",
        "七人の侍  1954",
        "Ame\u0301lie    2001",
    ]


def test_a_title_cannot_control_the_terminal() -> None:
    """Control characters in a cell, such as escapes and line ends, are replaced."""
    text = table.render(("title",), [("\x1b[2Jgone\n",)], "<")
    assert text.splitlines()[2] == "�[2Jgone�"


@pytest.mark.parametrize("align", ["", "<", "<<<"])
def test_an_alignment_for_each_column(align: str) -> None:
    """An alignment whose length differs from the number of headers is an error."""
    with pytest.raises(ValueError, match="zip"):
        table.render(("a", "b"), [("1", "2")], align)


def test_a_cell_for_each_column() -> None:
    """A row with fewer cells than headers is an error."""
    with pytest.raises(ValueError, match="zip"):
        table.render(("a", "b"), [("1",)], "<<")


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_text_gives_rows_of_one_line_and_equal_width(rows: list[tuple[str, str]]) -> None:
    """No cell text breaks a row into two or shifts the column to its right."""
    lines = table.render(("a", "b", "c"), [(*row, "|") for row in rows], "<><").split("\n")
    assert len(lines) == len(rows) + 2
    assert len({table.width(line) for line in lines}) == 1
