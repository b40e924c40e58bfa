"""Formats results as HTML tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Formats rows as an HTML table, and escapes all text.

    Numbers are right-aligned, None becomes an empty cell, and sequences such as genres are joined
    by commas. Columns without any value are omitted.

    Args:
        columns: The names of the columns.
        rows: The rows, each with one value per column.
    """
    cells = [list(row) for row in rows]
    visible = [
        column for column in range(len(columns)) if any(not _is_empty(row[column]) for row in cells)
    ]
    if not cells:
        visible = list(range(len(columns)))
    head = "".join(f"<th>{escape(columns[column].replace('_', ' '))}</th>" for column in visible)
    body = "\n".join(
        f"<tr>{''.join(_cell(row[column]) for column in visible)}</tr>" for row in cells
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _is_empty(value: Any) -> bool:
    return value is None or value in ((), "")


def _cell(value: Any) -> str:
    if _is_empty(value):
        return "<td></td>"
    if isinstance(value, float):
        return f'<td style="text-align: right">{value:.3f}</td>'
    if isinstance(value, int):
        return f'<td style="text-align: right">{value}</td>'
    text = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return f'<td style="text-align: left">{escape(text)}</td>'
