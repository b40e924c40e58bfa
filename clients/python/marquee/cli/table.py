"""Text tables for terminals."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_GAP = "  "


def render(headers: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Formats rows under headers, in columns as wide as their widest cell.

    Args:
        headers: The names of the columns.
        rows: The cells, one per header in each row.
        align: One character per column: `<` aligns it left, `>` right.

    Raises:
        ValueError: The length of a row or of `align` differs from the number of headers.
    """
    cells = [[printable(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["─" * size for size in widths])
    return "\n".join(
        _GAP.join(_pad(*column) for column in zip(row, widths, align, strict=True)).rstrip()
        for row in cells
    )


def width(text: str) -> int:
    """Returns the width of a text in terminal columns.

    Wide characters, such as Chinese ones, take two columns and combining characters none.
    """
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1 + _is_wide(char)
        for char in text
    )


def printable(text: str) -> str:
    """Replaces control characters by �, so that a text cannot control the terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def _pad(cell: str, size: int, align: str) -> str:
    space = " " * (size - width(cell))
    return space + cell if align == ">" else cell + space


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"
