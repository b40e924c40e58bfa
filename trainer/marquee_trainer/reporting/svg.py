"""The building blocks of charts: scales, ticks and SVG elements."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

# The width of a chart in user units; on a phone, it is about as many pixels.
WIDTH = 340.0
FONT_SIZE = 12.0
LINE_HEIGHT = 15.0
# An upper estimate of the average letter width of a sans-serif font, relative to the font size.
_LETTER = 0.6
_MIN_TICK_GAP = 10.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """Maps values to positions along an axis.

    Attributes:
        low: The value at the start of the axis.
        high: The value at its end; greater than `low`.
        start: The position of `low`, in the units of the chart.
        end: The position of `high`.
        is_log: Whether equal distances are equal ratios of 1 + value.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the position of a value."""
        low, high, at = (self._warp(number) for number in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self, letters: Callable[[float], str], vertical: bool = False) -> list[float]:
        """Returns round values at which to label the axis, spaced so that labels do not overlap.

        Args:
            letters: Formats a value as a label.
            vertical: Whether labels are stacked vertically rather than side by side.
        """
        for values in self._candidates():
            needed = [
                LINE_HEIGHT if vertical else text_width(letters(value)) + _MIN_TICK_GAP
                for value in values
            ]
            positions = [self(value) for value in values]
            gaps = [abs(after - before) for before, after in pairwise(positions)]
            halves = [(a + b) / 2 for a, b in pairwise(needed)]
            if all(gap >= half for gap, half in zip(gaps, halves, strict=True)):
                return values
        return [self.low]

    def _candidates(self) -> list[list[float]]:
        """Lists of tick values within the scale, from many to few."""
        if self.is_log:
            top = math.ceil(math.log10(max(self.high, 1.0)))
            found = []
            for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
                powers = [
                    float(factor * 10**power) for power in range(top + 1) for factor in factors
                ]
                found.append([value for value in (0.0, *powers) if self.low <= value <= self.high])
            return [values for values in found if values]
        found = []
        span = self.high - self.low
        unit = 10.0 ** math.floor(math.log10(span / 10))
        for scale in (unit, 10 * unit):
            for step in _STEPS:
                size = scale * step
                first = math.ceil(self.low / size - 1e-9)
                last = math.floor(self.high / size + 1e-9)
                # Adding 0 turns −0 into 0.
                found.append(
                    [round(position * size, 12) + 0.0 for position in range(first, last + 1)]
                )
        return [values for values in found if 0 < len(values) <= 8]

    def _warp(self, value: float) -> float:
        return math.log1p(value) if self.is_log else value


def spanning(values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Scale:
    """A linear scale that spans values, with a margin on both sides.

    Args:
        values: The values; at least one.
        start: The position of the lowest.
        end: The position of the highest.
        margin: The margin, as a share of the span.
    """
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    return Scale(low - margin * span, high + margin * span, start, end)


def text_width(text: str) -> float:
    """Estimates the width of a text; the estimate is an upper bound for usual fonts."""
    return len(text) * FONT_SIZE * _LETTER


def shortened(text: str, letters: int) -> str:
    """Truncates a text to a number of letters, with an ellipsis."""
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def label(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> str:
    """A text; `anchor` is the part of it that is at x: start, middle or end."""
    shown = f' class="{css}"' if css else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{side}{shown}>{html.escape(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """A line through points."""
    positions = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="curve" points="{positions}"/>'


def rectangle(x: float, y: float, width: float, height: float, css: str, tip: str) -> str:
    """A rectangle with a tooltip."""
    return (
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" '
        f'height="{height:.1f}" data-tip="{html.escape(tip)}"/>'
    )


def circle(x: float, y: float, radius: float, css: str, tip: str) -> str:
    """A circle with a tooltip."""
    return (
        f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" '
        f'data-tip="{html.escape(tip)}"/>'
    )


def drawing(name: str, title: str, description: str, height: float, parts: Sequence[str]) -> str:
    """An SVG element with an accessible title and description.

    Args:
        name: Its id in the page.
        title: The title.
        description: What it shows, in a sentence.
        height: Its height, in the units of the chart.
        parts: The elements in it.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:.0f}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">'
        f'{html.escape(title)}</title><desc id="{name}-desc">{html.escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
