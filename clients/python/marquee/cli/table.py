"""Text tables for terminals."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

_GAP = "  "
# The alignments of a column, with their former spellings.
_ALIGNMENTS = {"l": "<", "<": "<", "r": ">", ">": ">"}
# The minimum width of a text column, in terminal columns, as long as other columns can be dropped.
_MIN_TEXT = 14


def render(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    align: str,
    *,
    droppable: Sequence[str] = (),
    max_width: int | None = None,
) -> str:
    """Formats rows under headers, in columns as wide as their widest cell.

    A table that is wider than the terminal is made to fit: text columns are wrapped, and if that is
    not enough, columns are dropped and named in the last line.

    Args:
        headers: The names of the columns.
        rows: The rows, each with one cell per header.
        align: One character per column: `l` or `<` aligns it left, `r` or `>` right.
        droppable: Names of the columns to drop first, the least important first. After that,
            columns are dropped from the last to the second.
        max_width: The maximum width in terminal columns; None for the width of the terminal, or no
            limit if stdout is not a terminal.

    Raises:
        ValueError: The length of a row or of `align` differs from the number of headers, or `align`
            has an invalid character.
    """
    cells = [[printable(cell) for cell in row] for row in (headers, *rows)]
    sides = [_side(letter) for letter in align]
    columns = list(zip(cells[0], zip(*cells, strict=True), sides, strict=True))
    limit = _terminal_width() if max_width is None else max_width
    shown, sizes, dropped = _fit(columns, droppable, limit)
    lines: list[str] = []
    for row_index, row in enumerate(zip(*(columns[index][1] for index in shown), strict=True)):
        wrapped = [_wrap(cell, size) for cell, size in zip(row, sizes, strict=True)]
        for part in range(max(map(len, wrapped))):
            texts = [parts[part] if part < len(parts) else "" for parts in wrapped]
            padded = [
                _pad(text, size, columns[index][2])
                for text, size, index in zip(texts, sizes, shown, strict=True)
            ]
            lines.append(_GAP.join(padded).rstrip())
        if row_index == 0:
            lines.append(_GAP.join("─" * size for size in sizes))
    if dropped:
        names = ", ".join(columns[index][0] or "(unnamed)" for index in dropped)
        lines += _wrap(f"Not shown at this width: {names}", max(1, limit or 1))
    return "\n".join(lines)


def width(text: str) -> int:
    """Returns the width of a text in terminal columns.

    Wide characters, such as Chinese characters, take two columns, and combining characters none.
    """
    return sum(map(_char_width, text))


def printable(text: str) -> str:
    """Replaces control characters with �, so that text cannot control the terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def _fit(
    columns: Sequence[tuple[str, tuple[str, ...], str]],
    droppable: Sequence[str],
    limit: int | None,
) -> tuple[list[int], list[int], list[int]]:
    """Selects the columns to show, and computes their widths.

    Args:
        columns: The name, the cells (including the name) and the alignment of each column.
        droppable: Names of the columns to drop first.
        limit: The maximum width; None for no limit.

    Returns:
        The indexes of the columns to show, their widths, and the indexes of the others.
    """
    natural = [max(map(width, cells)) for _, cells, _ in columns]
    shown = list(range(len(columns)))
    if limit is None:
        return shown, natural, []
    by_name = {name: index for index, (name, _, _) in enumerate(columns)}
    first = [by_name[name] for name in droppable if by_name.get(name)]
    queue = [*first, *(index for index in reversed(shown[1:]) if index not in first)]
    while True:
        least = [
            min(natural[index], _MIN_TEXT) if columns[index][2] == "<" else natural[index]
            for index in shown
        ]
        room = limit - len(_GAP) * (len(shown) - 1)
        if sum(least) <= room or len(shown) == 1:
            break
        shown.remove(queue.pop(0))
    if len(shown) == 1:
        least = [min(natural[shown[0]], max(2, limit))]
        room = least[0]
    sizes = _widen(least, [natural[index] for index in shown], room)
    return shown, sizes, [index for index in range(len(columns)) if index not in shown]


def _widen(least: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """Distributes the available width over columns, the narrowest first, up to full width."""
    sizes = list(least)
    remaining = room - sum(sizes)
    growing = sorted(
        (index for index in range(len(sizes)) if natural[index] > sizes[index]),
        key=lambda index: natural[index],
    )
    for position, index in enumerate(growing):
        more = min(natural[index] - sizes[index], remaining // (len(growing) - position))
        sizes[index] += more
        remaining -= more
    return sizes


def _wrap(text: str, size: int) -> list[str]:
    """Breaks text into lines of at most `size` terminal columns, at spaces if possible."""
    lines: list[str] = []
    while width(text) > size:
        end = used = 0
        while used + _char_width(text[end]) <= size:
            used += _char_width(text[end])
            end += 1
        end = max(end, 1)
        space = text.rfind(" ", 1, end + 1)
        cut = space if space > 0 else end
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text] if text or not lines else lines


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _side(letter: str) -> str:
    if letter not in _ALIGNMENTS:
        raise ValueError(f"an alignment must be one of l, r, < and >, not {letter!r}")
    return _ALIGNMENTS[letter]


def _pad(cell: str, size: int, align: str) -> str:
    space = " " * (size - width(cell))
    return space + cell if align == ">" else cell + space


def _char_width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
