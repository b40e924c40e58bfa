"""Reads MovieLens titles: "Matrix, The (1999)" is "The Matrix" of 1999."""

from __future__ import annotations

import re

_YEAR = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:[-–]\d{0,4})?\)\s*$")
_ARTICLE = re.compile(
    r"^(?P<rest>.+), (?P<article>The|A|An|Il|La|Le|Les|L'|Der|Die|Das|El|Los|Las|Un|Une|Den|Det)$"
)


def split_title(text: str) -> tuple[str, int]:
    """A title with its article in front, and its year; 0 when there is none."""
    year = 0
    dated = _YEAR.match(text.strip())
    title = text.strip()
    if dated and dated["title"]:
        title, year = dated["title"], int(dated["year"])
    trailing = _ARTICLE.match(title)
    if trailing:
        gap = "" if trailing["article"].endswith("'") else " "
        title = f"{trailing['article']}{gap}{trailing['rest']}"
    return title, year
