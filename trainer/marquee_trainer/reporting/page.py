"""Writes the report as one self-contained HTML page, and its charts as SVG files next to it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from marquee_trainer.reporting.charts import Chart

_FOLDER = Path(__file__).parent
_NUMBER = re.compile(r"[-+−]?[\d,]*\.?\d+(?:e[-+]\d+)?(?: ?(?:%|s|to|–|-|[-+−]?[\d.,]+))*|")
_RIGHT = ' class="n"'
_LONG_TEXT = 40  # characters from which on a table column needs a minimum width
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
$summary
<nav aria-label="Sections"><ul>$links</ul></nav>
</header>
<main>
$body
</main>
<script>
$script</script>
</body>
</html>
""")


@dataclass(frozen=True)
class Card:
    """A card of the summary, with one figure.

    Attributes:
        name: What it is.
        value: The figure.
        note: A comparison with other figures, in a short sentence.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The summary at the top of the page.

    Attributes:
        cards: The main figures.
        text: The data set and the split, in a paragraph of plain text.
        next_steps: The recommended next steps, one sentence each. Text between backquotes is shown
            as code.
    """

    cards: Sequence[Card]
    text: str
    next_steps: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: The heading.
        text: An explanatory paragraph, as plain text; empty for none. Text between backquotes is
            shown as code.
        headers: The column headings of the table; empty for no table.
        rows: The rows of the table, one cell for each heading.
        charts: The charts.
        main_row: The first cell of the row to emphasise.
    """

    title: str
    text: str = ""
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    charts: Sequence[Chart] = ()
    main_row: str = "ensemble"


def write_report(folder: Path, title: str, summary: Summary, sections: Sequence[Section]) -> Path:
    """Writes `report.html` with its charts embedded, and each chart as an SVG file next to it.

    Args:
        folder: The folder to write to; it is created if it does not exist.
        title: The title of the page.
        summary: The summary at the top.
        sections: The sections, in order.

    Returns:
        The path of `report.html`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page_style, chart_style = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "chart.css")
    )
    for section in sections:
        for chart in section.charts:
            # A separate SVG file has the colours of the light theme.
            start = page_style.partition("@media")[0]
            style = f"<style>{start}{chart_style}</style>"
            head, _, rest = chart.svg.partition(">")
            image = f'{head} style="background:#fff">{style}{rest}\n'
            (folder / f"{chart.name}.svg").write_text(image, encoding="utf-8")
    names = [_slug(section.title) for section in sections]
    page = folder / "report.html"
    page.write_text(
        _PAGE.substitute(
            title=html.escape(title),
            style=page_style + chart_style,
            summary=_summary(summary),
            links="".join(
                f'<li><a href="#{name}">{html.escape(section.title)}</a></li>'
                for name, section in zip(names, sections, strict=True)
            ),
            body="\n".join(map(_section, names, sections)),
            script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
        ),
        encoding="utf-8",
    )
    return page


def _summary(summary: Summary) -> str:
    cards = "".join(
        f'<div class="card"><div class="name">{html.escape(card.name)}</div>'
        f'<div class="value">{html.escape(card.value)}</div>'
        f'<div class="note">{html.escape(card.note)}</div></div>'
        for card in summary.cards
    )
    steps = "".join(f"<li>{_with_code(step)}</li>" for step in summary.next_steps)
    return (
        f'<div class="cards">{cards}</div>\n<p>{_with_code(summary.text)}</p>\n'
        f'<h2>What to do next</h2>\n<ul class="next">{steps}</ul>'
    )


def _section(name: str, section: Section) -> str:
    parts = [f'<section id="{name}">', f"<h2>{html.escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{_with_code(section.text)}</p>")
    table = ""
    if section.headers:
        table = _table(section.title, section.headers, section.rows, section.main_row, "sortable")
    charts = list(map(_figure, section.charts))
    if len(charts) == 1:
        parts.append(f'<div class="side-by-side">{table}{charts[0]}</div>')
    else:
        parts.append(table)
        if charts:
            parts += ['<div class="charts">', *charts, "</div>"]
    return "\n".join([*parts, "</section>"])


def _figure(chart: Chart) -> str:
    title = html.escape(chart.title)
    legend = "".join(
        f'<li data-series="{_slug(name)}"><span class="swatch c{colour}"></span>'
        f"{html.escape(name)}</li>"
        for name, colour in chart.legend
    )
    return (
        f'<figure id="chart-{chart.name}"><figcaption>{title}</figcaption>{chart.svg}'
        + (f'<ul class="legend">{legend}</ul>' if legend else "")
        + f"<details><summary>The numbers</summary>"
        f"{_table(chart.title, chart.headers, chart.rows, '')}</details></figure>"
    )


def _table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], main_row: str, css: str = ""
) -> str:
    """A table in a scrollable box; columns of numbers are aligned right."""
    columns = list(zip(*rows, strict=True)) or [()] * len(headers)
    kinds = [_column_class(column) for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(text)}</th>'
        for text, kind in zip(headers, kinds, strict=True)
    )
    body = "".join(
        ('<tr class="main">' if main_row and row[0] == main_row else "<tr>")
        + "".join(
            f"<td{kind}>{html.escape(_minus(cell) if kind == _RIGHT else cell)}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table {css}" tabindex="0" role="region" aria-label="{html.escape(title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _column_class(cells: Sequence[str]) -> str:
    if any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells):
        return _RIGHT
    return ' class="text"' if any(len(cell) > _LONG_TEXT for cell in cells) else ""


def _minus(cell: str) -> str:
    """Replaces hyphens with typographic minus signs."""
    return cell.replace("-", "−")


def _with_code(text: str) -> str:
    """Converts plain text to HTML; code between backquotes breaks only at spaces."""

    def code(match: re.Match[str]) -> str:
        words = " ".join(f"<span>{word}</span>" for word in match[1].split(" "))
        return f"<code>{words}</code>"

    return re.sub(r"`([^`]+)`", code, html.escape(text))


def _slug(text: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in text)
