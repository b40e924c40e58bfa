"""The report in a browser: nothing overflows the page, and no labels overlap.

`make browser` installs the browser that these tests need and runs them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from browser import View, find_chromium, render_page

WIDTHS = (360, 1024, 1920)
READABLE_PX = 10.0
CHROMIUM = find_chromium()

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium is installed; `make browser` installs it"
    ),
]


def views(page: Path, dark: bool = False) -> list[View]:
    """Return the page at all widths."""
    assert CHROMIUM is not None
    return render_page(CHROMIUM, page, WIDTHS, dark)


def test_the_report_fits_every_screen(report: Path) -> None:
    """It fits phones, tablets and wide screens, and tables scroll in separate boxes."""
    found = views(report)
    assert [view.width for view in found] == list(WIDTHS)
    for view in found:
        assert view.scroll_width <= view.width
        assert view.outside == []
        assert view.overlaps == []
        assert view.smallest_text >= READABLE_PX


def test_the_report_follows_the_colour_scheme(report: Path) -> None:
    """The page is dark for users who prefer that, and otherwise light."""
    light, dark = views(report), views(report, dark=True)
    assert {view.background for view in light} == {"rgb(255, 255, 255)"}
    assert {view.background for view in dark} == {"rgb(20, 23, 27)"}


def test_elements_that_do_not_fit_are_detected(tmp_path: Path) -> None:
    """The measurement detects a wide element, overlapping labels and a truncated label."""
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><body><div style='width:500px'>wide</div>"
        "<svg viewBox='0 0 340 100' style='width:300px'><text x='10' y='50'>left label</text>"
        "<text x='30' y='52'>right label</text><text x='320' y='20'>beyond the edge</text></svg>"
    )
    narrow, *_ = views(page)
    assert narrow.scroll_width > narrow.width
    assert narrow.outside[0] == "DIV wide"
    assert "left label | right label" in narrow.overlaps
    assert "beyond the edge | edge of the chart" in narrow.overlaps
