"""Splits titles in MovieLens' form: "Matrix, The (1999)" is "The Matrix", 1999."""

from __future__ import annotations

import re

# A series may have a last year, and a video or television film a marker: "(1999-2003)", "(V)".
_YEAR = re.compile(
    r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:[-–]\d{0,4})?\)\s*(?:\((?:V|TV|TV Series)\))?$"
)
# An article at the end of the title, or at the end of an alternative title in parentheses.
_ARTICLE = re.compile(
    r"(?P<alias>a\.k\.a\.\s+)?(?P<rest>[^()]+), "
    r"(?P<article>The|A|An|L'|L’|La|Le|Les|Un|Une|Il|Lo|I|Gli|Una|El|Los|Las|Der|Die|Das|Ein|Eine|"
    r"De|Het|Een|Den|Det|En|Ett|Et|O|Os)"
    r"(?=\s*(?:[()]|$))"
)


def split_title(text: str) -> tuple[str, int]:
    """Splits a title into the title, with its article moved to the front, and the year.

    Returns:
        The title, and the year; 0 if the text has no year.
    """
    title, year = text.strip(), 0
    dated = _YEAR.match(title)
    if dated and dated["title"]:
        title, year = dated["title"], int(dated["year"])
    return _ARTICLE.sub(_article_first, title), year


def _article_first(match: re.Match[str]) -> str:
    gap = "" if match["article"].endswith(("'", "’")) else " "
    return f"{match['alias'] or ''}{match['article']}{gap}{match['rest']}"
