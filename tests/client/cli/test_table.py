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
    """Columns are aligned by their width on a terminal rather than the number of code points."""
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
def test_the_number_of_alignments_is_checked(align: str) -> None:
    """An alignment whose length differs from the number of headers is an error."""
    with pytest.raises(ValueError, match="zip"):
        table.render(("a", "b"), [("1", "2")], align)


def test_the_number_of_cells_is_checked() -> None:
    """A row with fewer cells than headers is an error."""
    with pytest.raises(ValueError, match="zip"):
        table.render(("a", "b"), [("1",)], "<<")


@pytest.mark.parametrize("align", ["lr", "<>"])
def test_alignments_may_be_letters_or_signs(align: str) -> None:
    """Letters and signs mean the same alignment."""
    text = table.render(("title", "year"), [("Alien", "1979"), ("M", "31")], align)
    assert text.splitlines()[2:] == ["Alien  1979", "M        31"]


def test_an_unknown_alignment_is_refused() -> None:
    """An alignment other than the documented ones is an error."""
    with pytest.raises(ValueError, match="not 'R'"):
        table.render(("a",), [("1",)], "R")


def test_text_is_wrapped_before_columns_are_omitted() -> None:
    """Text is wrapped to fit, while numbers stay whole on the first line of their row."""
    row = ("1", "The Good, the Bad and the Ugly", "4.51")
    text = table.render(("#", "title", "stars"), [row], "rlr", max_width=26)
    assert text.splitlines() == [
        "#  title             stars",
        "─  ────────────────  ─────",
        "1  The Good, the      4.51",
        "   Bad and the Ugly",
    ]


def test_columns_that_do_not_fit_are_listed() -> None:
    """The least important columns are omitted first, and the last line lists them."""
    headers = ("model", "score", "extra", "error")
    text = table.render(
        headers, [("ease", "0.1", "0.2", "0.3")], "lrrr", droppable=("extra",), max_width=30
    )
    assert "extra" in text
    assert "Not shown" not in text
    narrow = table.render(
        headers, [("ease", "0.1", "0.2", "0.3")], "lrrr", droppable=("extra",), max_width=20
    )
    assert narrow.splitlines()[0] == "model  score  error"
    assert narrow.splitlines()[-2:] == ["Not shown at this", "width: extra"]
    narrowest = table.render(headers, [("ease", "0.1", "0.2", "0.3")], "lrrr", max_width=13)
    assert narrowest.splitlines()[0] == "model  score"


@given(
    st.lists(st.tuples(*[st.text(st.characters(categories=["L", "N", "Zs"]))] * 3), max_size=5),
    st.integers(2, 60),
)
def test_a_table_is_never_wider_than_the_terminal(
    rows: list[tuple[str, str, str]], limit: int
) -> None:
    """Any table fits the terminal, and no letter of a shown cell is lost."""
    text = table.render(("a", "b", "c"), rows, "lll", max_width=limit)
    assert max(map(table.width, text.splitlines())) <= limit
    full = table.render(("a", "b", "c"), rows, "lll", max_width=10_000)
    if text.splitlines()[0].split() == ["a", "b", "c"]:
        assert _letters(text) == _letters(full)


def _letters(text: str) -> list[str]:
    return sorted(char for char in text if not char.isspace() and char != "─")


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_text_gives_rows_of_one_line_and_equal_width(rows: list[tuple[str, str]]) -> None:
    """No cell text breaks a row into two or shifts the column to its right."""
    lines = table.render(("a", "b", "c"), [(*row, "|") for row in rows], "<><").split("\n")
    assert len(lines) == len(rows) + 2
    assert len({table.width(line) for line in lines}) == 1
