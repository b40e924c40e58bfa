"""The meaning of a model's scores."""

from __future__ import annotations

from enum import StrEnum


class Output(StrEnum):
    """The meaning of a model's scores."""

    STARS = "stars"  # predicted ratings in stars
    AFFINITY = "affinity"  # only the order of the scores is meaningful
