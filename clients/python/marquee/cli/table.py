"""Tables of text for terminals."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_GAP = "  "


def render(headers: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Lays out rows under headers, in columns as wide as their widest cell.

    Args:
        headers: The columns' names.
        rows: The cells; each row has as many as there are headers.
        align: For each column `<` to align it left or `>` to align it right.

    Raises:
        ValueError: A row, or `align`, is not as long as the headers.
    """
    cells = [[printable(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["─" * size for size in widths])
    return "\n".join(
        _GAP.join(_pad(*column) for column in zip(row, widths, align, strict=True)).rstrip()
        for row in cells
    )


def width(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters two, combining ones none."""
    return sum(
        0 if unicodedata.category(sign) in ("Mn", "Me", "Cf") else 1 + _is_wide(sign)
        for sign in text
    )


def printable(text: str) -> str:
    """The text, with � for what would move the cursor or give the terminal orders."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def _pad(cell: str, size: int, align: str) -> str:
    space = " " * (size - width(cell))
    return space + cell if align == ">" else cell + space


def _is_wide(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in "WF"
