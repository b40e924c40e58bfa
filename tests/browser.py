"""Renders pages in Chromium, and finds elements outside the page and overlapping chart labels.

`make browser` installs Debian's Chromium. No driver is needed: a harness page shows the page under
test in frames of several widths, measures them, and replaces its own content by the result as JSON,
which Chromium prints.
"""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
)
_TIMEOUT_S = 120
# Boxes may overlap by a fraction of a pixel, and the ascenders of a line touch the line above.
_SCRIPT = """
const tolerance = 1.5;
addEventListener("load", () => {
  const seen = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument;
    const root = page.documentElement;
    const width = frame.contentWindow.innerWidth;
    const outside = [];
    for (const element of page.querySelectorAll("body *")) {
      if (element.closest(".table, details, #tip") && !element.matches(".table")) continue;
      const box = element.getBoundingClientRect();
      if (box.width && (box.right > width + tolerance || box.left < -tolerance))
        outside.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
    }
    const overlaps = [];
    const smallest = [];
    for (const svg of page.querySelectorAll("svg")) {
      const area = svg.getBoundingClientRect();
      const labels = [...svg.querySelectorAll("text")];
      const boxes = labels.map((text) => text.getBoundingClientRect());
      labels.forEach((text, i) => {
        const a = boxes[i];
        const zoom = area.width / svg.viewBox.baseVal.width;
        smallest.push(parseFloat(getComputedStyle(text).fontSize) * zoom);
        if (a.left < area.left - tolerance || a.right > area.right + tolerance)
          overlaps.push(`${text.textContent} | edge of the chart`);
        for (let j = i + 1; j < labels.length; j++) {
          const b = boxes[j];
          const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (x > tolerance && y > tolerance + 2)
            overlaps.push(`${text.textContent} | ${labels[j].textContent}`);
        }
      });
    }
    seen.push({
      width, scroll_width: root.scrollWidth, outside, overlaps,
      smallest_text: Math.min(...smallest),
      background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    });
  }
  document.documentElement.textContent = "<<" + JSON.stringify(seen) + ">>";
});
"""


@dataclass(frozen=True)
class View:
    """A page rendered at one width.

    Attributes:
        width: Width of the window in pixels.
        scroll_width: Width of the page in pixels.
        outside: The elements that extend beyond the window, except in boxes that scroll.
        overlaps: Pairs of overlapping labels in charts.
        smallest_text: Size of the smallest label in a chart, in pixels.
        background: The background colour of the page.
    """

    width: int
    scroll_width: int
    outside: Sequence[str]
    overlaps: Sequence[str]
    smallest_text: float
    background: str


def find_chromium() -> str | None:
    """Returns the path of Chromium; None if it is not installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def render_page(chromium: str, page: Path, widths: Sequence[int], dark: bool = False) -> list[View]:
    """Renders a page in windows of several widths.

    Args:
        chromium: Path of Chromium.
        page: The page, a self-contained HTML file.
        widths: The widths in pixels.
        dark: Whether the dark colour scheme is preferred.
    """
    source = html.escape(page.read_text(encoding="utf-8"))
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{source}"></iframe>'
        for width in widths
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        harness = Path(folder, "harness.html")
        harness.write_text(
            f"<!doctype html><meta charset=utf-8><script>{_SCRIPT}</script>{frames}",
            encoding="utf-8",
        )
        result = subprocess.run(
            [
                chromium,
                *_FLAGS,
                f"--user-data-dir={folder}/profile",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                "--dump-dom",
                harness.as_uri(),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    found = html.unescape(result.stdout).partition("<<")[2].rpartition(">>")[0]
    return [View(**view) for view in json.loads(found)]
