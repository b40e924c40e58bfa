"""Charts as SVG, readable on a phone and on a wide screen.

Each chart also has its data as a table, for readers who cannot see it or want the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marquee_trainer.metrics.bootstrap import Interval
from marquee_trainer.reporting.svg import (
    LINE_HEIGHT,
    WIDTH,
    Scale,
    circle,
    drawing,
    label,
    line,
    polyline,
    rectangle,
    shortened,
    spanning,
    text_width,
)

_LABEL_LETTERS = 20
_PLOT_HEIGHT = 190.0
_MOST_POINTS = 40  # with a tooltip on each curve

# Numbers of colours: 0 for series in the background, the others in order of importance.
BACKGROUND = 0
COLOURS = 6


@dataclass(frozen=True)
class Chart:
    """A chart of the report.

    Attributes:
        name: Its id in the page, and its file name without the suffix.
        title: What it shows, with the unit.
        svg: The SVG element.
        legend: The series, each with the number of its colour; empty if there is only one.
        headers: The column headings of its data as a table.
        rows: The rows of that table.
    """

    name: str
    title: str
    svg: str
    legend: Sequence[tuple[str, int]]
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        points: Its points (x, y), ordered by x.
        colour: The number of its colour.
    """

    points: Sequence[tuple[float, float]]
    colour: int = BACKGROUND


def bars(
    name: str,
    title: str,
    unit: str,
    groups: Mapping[str, Sequence[float]],
    series: Sequence[str] = (),
    intervals: Mapping[str, Interval] | None = None,
    digits: int = 3,
) -> Chart:
    """Draws horizontal bars with their values on the right.

    Args:
        name: The name of the chart.
        title: Its title.
        unit: The label of the axis, with the unit.
        groups: For each label, the values of its bars: one for each series.
        series: The names of the series; empty if there is only one.
        intervals: For each label, the confidence interval of its first bar.
        digits: The number of decimals.
    """
    intervals = intervals or {}
    thickness = 13.0
    names = [shortened(text, _LABEL_LETTERS) for text in groups]
    left = max(map(text_width, names), default=0.0) + 10
    texts = [[_decimal(value, digits) for value in row] for row in groups.values()]
    right = max((text_width(text) for row in texts for text in row), default=0.0) + 10
    ends = [value for row in groups.values() for value in row]
    ends += [end for interval in intervals.values() for end in (interval.low, interval.high)]
    low, high = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
    scale = Scale(low, high if high > low else low + 1.0, left, WIDTH - right)
    group_height = thickness * max(1, len(series)) + 9
    bottom = group_height * len(groups) + 4
    parts = []
    for tick in scale.ticks(_short):
        parts.append(line(scale(tick), 0, scale(tick), bottom, "grid"))
        parts.append(label(scale(tick), bottom + 13, _short(tick), "middle", "tick"))
    parts.append(line(scale(0), 0, scale(0), bottom, "axis"))
    parts.append(label(WIDTH - right, bottom + 28, unit, "end", "unit"))
    for position, (group, values) in enumerate(groups.items()):
        top = group_height * position + 4
        middle = top + thickness * max(1, len(series)) / 2
        parts.append(label(0, middle + 4, names[position]))
        for index, value in enumerate(values):
            y = top + index * thickness
            x = min(scale(0), scale(value))
            what = f"{group}, {series[index]}" if series else group
            tip = f"{what}: {texts[position][index]}"
            if index == 0 and group in intervals:
                tip += f" ({intervals[group].low:.{digits}f} to {intervals[group].high:.{digits}f})"
            width = abs(scale(value) - scale(0))
            parts.append(rectangle(x, y, width, thickness - 1, f"bar c{index + 1}", tip))
            parts.append(label(WIDTH, y + thickness - 3, texts[position][index], "end", "tick"))
        if group in intervals:
            ends_x = scale(intervals[group].low), scale(intervals[group].high)
            parts.append(line(ends_x[0], middle, ends_x[1], middle, "whisker"))
            parts += [line(x, middle - 3, x, middle + 3, "whisker") for x in ends_x]
    legend = [(text, index + 1) for index, text in enumerate(series)] if len(series) > 1 else []
    headers = ["", *(series or (unit,)), *(["from", "to"] if intervals else [])]
    rows = [
        [group, *texts[position], *_interval_cells(intervals.get(group), digits, bool(intervals))]
        for position, group in enumerate(groups)
    ]
    description = f"Bars of {unit} for {', '.join(groups)}."
    return Chart(
        name, title, drawing(name, title, description, bottom + 34, parts), legend, headers, rows
    )


def curves(
    name: str,
    title: str,
    axes: tuple[str, str],
    series: Mapping[str, Series],
    log_x: bool = False,
    mark: tuple[float, str] | None = None,
) -> Chart:
    """Draws a curve for each series.

    Args:
        name: The name of the chart.
        title: Its title.
        axes: The labels of the x and the y axis, with their units.
        series: The curves by name; background series are drawn first.
        log_x: Whether the x axis is logarithmic.
        mark: A value on the x axis to mark with a vertical line, and its description.
    """
    xs = [x for curve in series.values() for x, _ in curve.points]
    ys = [y for curve in series.values() for _, y in curve.points]
    plot = _Plot.of(xs, ys, axes, log_x)
    parts = plot.frame()
    if mark is not None:
        x = plot.x(mark[0])
        parts.append(line(x, plot.top, x, plot.bottom, "mark"))
    ordered = sorted(series.items(), key=lambda item: item[1].colour != BACKGROUND)
    for label_, curve in ordered:
        positions = [(plot.x(x), plot.y(y)) for x, y in curve.points]
        every = max(1, -(-len(positions) // _MOST_POINTS))
        dots = [
            circle(px, py, 2.2, "dot", f"{label_}, {axes[0]} {_short(x)}: {y:.4g}")
            for (px, py), (x, y) in list(zip(positions, curve.points, strict=True))[::every]
        ]
        parts.append(
            f'<g class="series c{curve.colour}" data-series="{_slug(label_)}">'
            f"{polyline(positions)}{''.join(dots)}</g>"
        )
    described = f"{axes[1]} by {axes[0]} for {', '.join(series)}."
    if mark is not None:
        described += f" A dotted line marks {mark[1]}: {_short(mark[0])}."
    legend = [(label_, curve.colour) for label_, curve in series.items()] if len(series) > 1 else []
    headers, rows = _curve_table(axes[0], series)
    return Chart(
        name, title, drawing(name, title, described, plot.height, parts), legend, headers, rows
    )


def bubbles(
    name: str,
    title: str,
    axes: tuple[str, str],
    points: Sequence[tuple[float, float, int]],
    size: str,
) -> Chart:
    """Draws circles whose areas are counts, and the diagonal on which both axes are equal.

    Args:
        name: The name of the chart.
        title: Its title.
        axes: The labels of the x and the y axis, with their units.
        points: x, y and the count of each circle.
        size: What is counted.
    """
    ends = [value for x, y, _ in points for value in (x, y)]
    plot = _Plot.of(ends, ends, axes, False)
    largest = max(count for *_, count in points)
    low, high = min(ends), max(ends)
    parts = [
        *plot.frame(),
        line(plot.x(low), plot.y(low), plot.x(high), plot.y(high), "mark"),
        *(
            circle(
                plot.x(x),
                plot.y(y),
                2.0 + 9.0 * (count / largest) ** 0.5,
                "bubble c1",
                f"{axes[0]} {x:.2f}: {axes[1]} {y:.2f}, {count:,} {size}",
            )
            for x, y, count in points
        ),
    ]
    described = f"{axes[1]} by {axes[0]}; larger circles stand for more {size}."
    return Chart(
        name,
        title,
        drawing(name, title, described, plot.height, parts),
        [],
        [*axes, size],
        [[f"{x:.2f}", f"{y:.2f}", f"{count:,}"] for x, y, count in points],
    )


@dataclass(frozen=True)
class _Plot:
    """The area between two axes.

    Attributes:
        x: The scale of the x axis.
        y: The scale of the y axis.
        axes: The labels of both.
        left: The left edge.
        top: The top edge.
        bottom: The bottom edge.
    """

    x: Scale
    y: Scale
    axes: tuple[str, str]
    left: float
    top: float
    bottom: float

    @classmethod
    def of(
        cls, xs: Sequence[float], ys: Sequence[float], axes: tuple[str, str], log_x: bool
    ) -> _Plot:
        top = LINE_HEIGHT + 6
        bottom = top + _PLOT_HEIGHT
        y = spanning(ys or [0.0], bottom, top)
        left = max(text_width(_short(tick)) for tick in y.ticks(_short, vertical=True)) + 8
        right = WIDTH - 12
        if log_x:
            low, high = min(xs), max(xs)
            x = Scale(low, high if high > low else low + 1.0, left + 6, right, is_log=True)
        else:
            x = spanning(xs or [0.0], left, right, 0.03)
        return cls(x, y, axes, left, top, bottom)

    @property
    def height(self) -> float:
        return self.bottom + 2 * LINE_HEIGHT + 6

    def frame(self) -> list[str]:
        """The axes with their labels and grid lines."""
        parts = [label(0, LINE_HEIGHT - 4, self.axes[1], css="unit")]
        for tick in self.y.ticks(_short, vertical=True):
            y = self.y(tick)
            parts.append(line(self.left, y, WIDTH, y, "grid"))
            parts.append(label(self.left - 6, y + 4, _short(tick), "end", "tick"))
        for tick in self.x.ticks(_short):
            x = self.x(tick)
            parts.append(line(x, self.bottom, x, self.bottom + 4, "axis"))
            parts.append(label(x, self.bottom + LINE_HEIGHT, _short(tick), "middle", "tick"))
        parts.append(line(self.left, self.bottom, WIDTH, self.bottom, "axis"))
        parts.append(label(WIDTH, self.bottom + 2 * LINE_HEIGHT, self.axes[0], "end", "unit"))
        return parts


def _curve_table(x_name: str, series: Mapping[str, Series]) -> tuple[list[str], list[list[str]]]:
    """The points of all curves as a table, with a row for each x and a column for each curve."""
    by_name = {name: dict(curve.points) for name, curve in series.items()}
    xs = sorted({x for points in by_name.values() for x in points})
    rows = [
        [
            _short(x),
            *(f"{points[x]:.4f}" if x in points else "" for points in by_name.values()),
        ]
        for x in xs
    ]
    return [x_name, *by_name], rows


def _interval_cells(interval: Interval | None, digits: int, shown: bool) -> list[str]:
    if not shown:
        return []
    if interval is None:
        return ["", ""]
    return [f"{interval.low:.{digits}f}", f"{interval.high:.{digits}f}"]


def _short(value: float) -> str:
    """Formats a number with at most four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}".replace("-", "−")


def _decimal(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _slug(text: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in text)
