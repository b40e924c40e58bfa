"""Draws dashboards from their queries, without Grafana."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from observe.monitoring import Panel, panels
from observe.prometheus import Prometheus

_COLUMNS = 2
_STEP_S = 2.0
_RATE_INTERVAL = "15s"
_MAX_SERIES = 8
_LONG_S = 10.0
# Heights in inches.
_HEIGHTS, _LINES_HEIGHT, _TITLE_HEIGHT = {"stat": 1.2, "table": 1.2}, 2.6, 0.5
# Labels of at most so many characters fit side by side.
_SHORT = 24
_WHOLE = 100.0
# With fewer colours, lines become hard to tell apart.
_COLOURS = 128
# The lines of a panel: the label, times and values of each.
Series = Sequence[tuple[str, Sequence[tuple[float, float]]]]
_SCALES: Mapping[str, tuple[float, str]] = {
    "s": (1000.0, "ms"),
    "percentunit": (100.0, "%"),
    "bytes": (1 / 2**20, "MiB"),
    "reqps": (1.0, "per second"),
    "cps": (1.0, "per second"),
}


def draw_dashboards(prometheus: Prometheus, start: float, end: float, folder: Path) -> list[Path]:
    """Draws an image of each dashboard.

    Args:
        prometheus: The server that has the data.
        start: The first time, in seconds since 1970.
        end: The last time, in seconds since 1970.
        folder: Folder for the images: PNG files named after the dashboards.

    Returns:
        The image files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    found = sorted(panels(_RATE_INTERVAL), key=lambda panel: panel.dashboard)
    for name, group in itertools.groupby(found, key=lambda panel: panel.dashboard):
        path = folder / f"{name}.png"
        _draw(prometheus, list(group), start, end, name, path)
        made.append(path)
    return made


def _draw(
    prometheus: Prometheus,
    shown: Sequence[Panel],
    start: float,
    end: float,
    name: str,
    path: Path,
) -> None:
    rows = -(-len(shown) // _COLUMNS)
    # Single values need less space than lines; panels of a kind are side by side.
    heights = [
        max(_HEIGHTS.get(panel.kind, _LINES_HEIGHT) for panel in shown[n : n + _COLUMNS])
        for n in range(0, len(shown), _COLUMNS)
    ]
    size = (5 * _COLUMNS, sum(heights) + _TITLE_HEIGHT)
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    grid = figure.add_gridspec(rows, _COLUMNS, height_ratios=heights)
    figure.suptitle(f"Marquee / {name.replace('-', ' ').capitalize()}")
    for place, panel in enumerate(shown):
        axes = figure.add_subplot(grid[divmod(place, _COLUMNS)])
        drawn = [
            (_legend(legend, labels), [(t - start, v) for t, v in values if math.isfinite(v)])
            for query, legend in panel.queries
            for labels, values in prometheus.series(query, start, end, _STEP_S)
        ]
        drawn = [(label, values) for label, values in drawn if values][:_MAX_SERIES]
        highest = max((v for _, values in drawn for _, v in values), default=0.0)
        factor, unit = _scale(panel.unit, highest)
        axes.set_title(f"{panel.title} ({unit})" if unit else panel.title, fontsize=12)
        scaled = [(label, [(t, v * factor) for t, v in values]) for label, values in drawn]
        (_draw_last if panel.kind in _HEIGHTS else _draw_lines)(axes, scaled)
    drawn_figure = io.BytesIO()
    figure.savefig(drawn_figure, format="png")
    # A palette reduces the size of the files to a third.
    with Image.open(drawn_figure) as picture:
        picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE).save(
            path, optimize=True
        )


def _draw_last(axes: Axes, series: Series) -> None:
    """Writes the last value of each series, or only its label if that contains the value."""
    lines = [
        label if any(map(str.isdigit, label)) else f"{label} {_number(values[-1][1])}".strip()
        for label, values in series
    ]
    axes.set_axis_off()
    axes.text(0.5, 0.5, "\n".join(lines) or "none", ha="center", va="center", fontsize=14)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _WHOLE else f"{value:.3g}"


def _draw_lines(axes: Axes, series: Series) -> None:
    """Draws a line for each series, with space for the legend above them."""
    highest = 0.0
    for label, values in series:
        times, heights = zip(*values, strict=True)
        axes.plot(times, heights, label=label, linewidth=1.5)
        highest = max(highest, *heights)
    axes.tick_params(labelsize=10)
    axes.set_xlabel("seconds", fontsize=9)
    labels = [label for label, _ in series if label]
    columns = 2 if all(len(label) <= _SHORT for label in labels) else 1
    lines = -(-len(labels) // columns)
    axes.set_ylim(0, (highest or 1.0) * (1.08 + 0.14 * lines))
    axes.grid(alpha=0.3)
    if labels:
        legend = axes.legend(fontsize=8, loc="upper left", ncols=columns, framealpha=0.6)
        legend.set_in_layout(False)


def _scale(unit: str, highest: float) -> tuple[float, str]:
    """Returns the factor to multiply values by, and the resulting unit."""
    if unit == "s" and highest >= _LONG_S:
        return 1.0, "s"
    return _SCALES.get(unit, (1.0, ""))


def _legend(template: str, labels: Mapping[str, str]) -> str:
    text = re.sub(r"{{(\w+)}}", lambda m: labels.get(m[1], ""), template)
    return text if len(text) <= 40 else f"{text[:39]}…"
