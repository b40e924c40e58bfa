"""Ratings of two groups of users with opposite tastes, for tests that train on files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

USERS, ITEMS = 40, 30
Row = tuple[str, str, int, int]


def _ratings() -> list[Row]:
    """Return ratings (user, item, stars, seconds) of two groups with opposite tastes."""
    random = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(USERS):
        for item in np.flatnonzero(random.random(ITEMS) < 0.45).tolist():
            liked = item % 2 == user % 2
            stars = int(random.integers(4, 6) if liked else random.integers(1, 4))
            rows.append((f"u{user}", f"i{item}", stars, 1_600_000_000 + 3_600 * len(rows)))
    return rows


def table(
    header: str, rows: Iterable[Sequence[object]], separator: str = ",", quoting: int = 0
) -> str:
    """Return a table as text, with lines that end in CR LF."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting)  # type: ignore[arg-type]
    if header:
        writer.writerow(header.split(","))
    writer.writerows(rows)
    return text.getvalue()


ROWS = _ratings()
"""Ratings as rows of user, item, stars from 1 to 5, and seconds."""
