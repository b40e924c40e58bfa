"""Charts: readable labels, and numbers for readers who cannot see the chart."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.metrics.bootstrap import Interval
from marquee_trainer.reporting.charts import Series, bars, bubbles, curves
from marquee_trainer.reporting.svg import WIDTH, Scale, spanning, text_width

values = st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: round(value, 3))


def places(svg: str, tag: str, *attributes: str) -> list[list[float]]:
    """Return the attributes of all elements with a tag."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - written by us
    return [
        [float(element.attrib[name]) for name in attributes]
        for element in root.iter()
        if element.tag.rpartition("}")[2] == tag
    ]


@given(st.lists(values, min_size=1, max_size=8))
def test_bars_are_proportional_to_their_values(heights: list[float]) -> None:
    """Negative bars start at the same line, and none leaves the chart."""
    groups = {f"model {place}": (value,) for place, value in enumerate(heights)}
    chart = bars("b", "Bars", "unit", groups)
    found = places(chart.svg, "rect", "x", "width")
    assert len(found) == len(heights)
    assert all(x >= 0 and x + width <= WIDTH for x, width in found)
    largest = max(map(abs, heights))
    if largest > 0.01:
        full = max(width for _, width in found)
        for (_, width), value in zip(found, heights, strict=True):
            assert width == pytest.approx(full * abs(value) / largest, abs=0.6)
    assert [row[0] for row in chart.rows] == list(groups)


@given(values, values, st.booleans())
def test_ticks_are_on_the_axis_and_do_not_overlap(one: float, other: float, is_log: bool) -> None:
    """For any range there is a label, and no two labels overlap."""
    low, high = sorted((abs(one), abs(other)) if is_log else (one, other))
    scale = Scale(low, high if high > low + 1e-3 else low + 1.0, 20, WIDTH, is_log)
    ticks = scale.ticks(lambda value: f"{value:g}")
    assert ticks
    assert all(20 - 1e-6 <= scale(tick) <= WIDTH + 1e-6 for tick in ticks)
    for before, after in pairwise(ticks):
        needed = (text_width(f"{before:g}") + text_width(f"{after:g}")) / 2
        assert scale(after) - scale(before) >= needed


def test_a_scale_of_equal_values_is_not_empty() -> None:
    """A model that predicts a constant is drawn in the middle."""
    scale = spanning([3.0, 3.0], 0, 100)
    assert scale(3.0) == pytest.approx(50)


def test_intervals_are_drawn_and_listed() -> None:
    """The label of a bar and the table both show the ends of the interval."""
    chart = bars(
        "b", "Bars", "NDCG@10", {"ease": (0.39,)}, intervals={"ease": Interval(0.39, 0.37, 0.41)}
    )
    assert "ease: 0.390 (0.370 to 0.410)" in chart.svg
    assert chart.headers == ["", "NDCG@10", "from", "to"]
    assert chart.rows == [["ease", "0.390", "0.370", "0.410"]]


def test_curves_are_listed_by_x() -> None:
    """The table has a row per x, a column per curve, and empty cells for missing points."""
    series = {"a": Series([(1.0, 0.5), (2.0, 0.4)], 1), "b": Series([(2.0, 0.3)])}
    chart = curves("c", "Curves", ("epoch", "MSE"), series, mark=(2.0, "the best"))
    assert chart.headers == ["epoch", "a", "b"]
    assert chart.rows == [["1", "0.5000", ""], ["2", "0.4000", "0.3000"]]
    assert chart.legend == [("a", 1), ("b", 0)]
    assert "marks the best: 2" in chart.svg


def test_the_area_of_a_bubble_grows_with_its_count() -> None:
    """A larger number of ratings has a larger circle."""
    chart = bubbles("d", "Bubbles", ("x", "y"), [(1.0, 1.1, 10), (2.0, 1.9, 1000)], "ratings")
    small, large = (radius for (radius,) in places(chart.svg, "circle", "r"))
    assert small < large
    assert "1,000 ratings" in chart.svg
