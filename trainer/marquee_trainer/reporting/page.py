"""Writes the report as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

_DPI = 110
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: The heading.
        text: An explanatory paragraph, as plain text; empty for none.
        headers: The column headings of the table; empty for no table.
        rows: The rows of the table, one cell for each heading.
        plots: The figures, each with the name of its PNG file without the suffix.
    """

    title: str
    text: str = ""
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    plots: Sequence[tuple[str, Figure]] = ()


def write_report(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes `report.html` with its plots embedded, and each plot as a PNG file beside it.

    Args:
        folder: The folder to write to; it is created if it does not exist.
        title: The title of the page.
        sections: The sections, in order.

    Returns:
        The path of `report.html`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    body = "\n".join(_section(folder, section) for section in sections)
    page = folder / "report.html"
    page.write_text(_PAGE.substitute(title=html.escape(title), body=body))
    return page


def _section(folder: Path, section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    if section.headers:
        parts.append("<table>" + _row("th", section.headers))
        parts += [_row("td", row) for row in section.rows]
        parts.append("</table>")
    for name, figure in section.plots:
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=_DPI)
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f'<img alt="{html.escape(name)}" src="data:image/png;base64,{data}">')
    return "\n".join(parts)


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
