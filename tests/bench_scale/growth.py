"""Computes growth exponents, verdicts, and the expected duration of measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

MAX_EXPONENT = 1.15
"""The maximum growth exponent in the number of ratings."""

# The exponent that is assumed if only one size has been measured.
_ASSUMED = 1.2


def exponent(costs: Mapping[int, float]) -> float:
    """Returns the exponent p in cost ~ ratings^p between the smallest and the largest size.

    Args:
        costs: The cost by number of ratings, both positive.

    Returns:
        The exponent; NaN if fewer than two sizes have been measured.
    """
    if len(costs) < 2:
        return math.nan
    low, high = min(costs), max(costs)
    return math.log(costs[high] / costs[low]) / math.log(high / low)


def verdict(found: float, complete: bool) -> str:
    """Returns the verdict on an exponent.

    Args:
        found: The exponent; NaN if it was not measured.
        complete: Whether all sizes have been measured; otherwise the verdict says "so far".
    """
    if math.isnan(found):
        return "not measured"
    outcome = "met" if found <= MAX_EXPONENT else "missed"
    return outcome if complete else f"{outcome} so far"


def expected_cost(costs: Mapping[int, float], ratings: int) -> float | None:
    """Predicts the cost at a size from the costs at smaller sizes; None if there are none.

    Args:
        costs: The cost by number of ratings.
        ratings: The number of ratings to predict for.
    """
    below = {size: cost for size, cost in costs.items() if size < ratings}
    if not below:
        return None
    nearest = max(below)
    power = exponent(below)
    if math.isnan(power):
        power = _ASSUMED
    return below[nearest] * math.pow(ratings / nearest, max(power, 1.0))


def table(
    costs: Mapping[str, Mapping[int, float]], sizes: Sequence[int], unit: str
) -> tuple[list[str], list[list[str]]]:
    """Makes the growth table.

    Args:
        costs: The costs by subject and number of ratings.
        sizes: The sizes of the columns, ascending.
        unit: The unit of the costs.

    Returns:
        The headers and the rows.
    """
    headers = [unit, *(f"{size / 1e6:g} M" for size in sizes), "exponent", "target", "verdict"]
    rows = []
    for subject, by_size in costs.items():
        known = {size: by_size[size] for size in sizes if size in by_size}
        power = exponent(known)
        cells = [f"{known[size]:,.3g}" if size in known else "" for size in sizes]
        shown = "" if math.isnan(power) else f"{power:.2f}"
        complete = len(known) == len(sizes)
        rows.append([subject, *cells, shown, f"<= {MAX_EXPONENT:g}", verdict(power, complete)])
    return headers, rows
