"""The tables of the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee.cli import table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Numbers stand on the right, text on the left, and no line ends in spaces."""
    text = table.render(("#", "title"), [("1", "Alien"), ("10", "Brazil")], "><")
    assert text.splitlines() == [
        " #  title",
        "──  ──────",
        " 1  Alien",
        "10  Brazil",
    ]


def test_wide_and_combining_characters_keep_columns_straight() -> None:
    """Columns line up by what a terminal shows, not by the number of code points."""
    text = table.render(("title", "year"), [("七人の侍", "1954"), ("Ame\u0301lie", "2001")], "<<")
    assert text.splitlines() == [
        "title     year",
        "────────  ────",
        "七人の侍  1954",
        "Ame\u0301lie    2001",
    ]


def test_a_title_cannot_give_the_terminal_orders() -> None:
    """Escape sequences and line ends of a cell are shown as what they are not."""
    text = table.render(("title",), [("\x1b[2Jgone\n",)], "<")
    assert text.splitlines()[2] == "�[2Jgone�"


@pytest.mark.parametrize("align", ["", "<", "<<<"])
def test_an_alignment_for_each_column(align: str) -> None:
    """An alignment that does not fit the headers is an error, not a guess."""
    with pytest.raises(ValueError, match="zip"):
        table.render(("a", "b"), [("1", "2")], align)


def test_a_cell_for_each_column() -> None:
    """A row that is too short is an error."""
    with pytest.raises(ValueError, match="zip"):
        table.render(("a", "b"), [("1",)], "<<")


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_whatever_the_text_rows_are_lines_of_one_width(rows: list[tuple[str, str]]) -> None:
    """No text breaks a row, or moves what stands to its right."""
    lines = table.render(("a", "b", "c"), [(*row, "|") for row in rows], "<><").split("\n")
    assert len(lines) == len(rows) + 2
    assert len({table.width(line) for line in lines}) == 1
