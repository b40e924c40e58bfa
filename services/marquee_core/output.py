"""What a model's scores mean."""

from __future__ import annotations

from enum import StrEnum


class Output(StrEnum):
    """What a model's scores are."""

    STARS = "stars"  # predicted ratings
    AFFINITY = "affinity"  # good for order alone
