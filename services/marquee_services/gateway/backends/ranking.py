"""A backend's part of a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from marquee_core.arrays import Float32
from marquee_core.retrieval.exact import Found

ModelWeights: TypeAlias = tuple[tuple[str, float], ...]
"""The models of one backend in a blend, with their weights."""


@dataclass(frozen=True)
class BackendRanking:
    """One user's ranking by the models of one backend.

    Attributes:
        scores: The weighted sum of the models' scores of each candidate (float32, C).
        best: Each model's own best items with their scores, best first, by the model's name.
        abstaining: The names of the models that cannot score the user; they are not in the sum.
    """

    scores: Float32
    best: dict[str, Found]
    abstaining: list[str]
