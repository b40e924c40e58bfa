"""A backend's part of a ranking."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_core.arrays import Float32
from marquee_core.retrieval.exact import Found
from marquee_services.scoring.plan import BestItems, TopItems


@dataclass(frozen=True)
class BackendRanking:
    """One user's ranking by the models of one backend.

    Attributes:
        scores: The weighted sum of the models' scores of each candidate (float32, C).
        best: Each model's own best items with their scores, the best first, by the model's name.
        abstaining: The names of the models that cannot score the user and are not in the sum.
        stars: The user's best items as scored by the plan's `stars_models`; None if there are none.
        top: The best items of the whole ranking, in which case `scores` and `best` are empty; None
            if the plan has no `top_count`.
    """

    scores: Float32
    best: dict[str, Found]
    abstaining: list[str]
    stars: BestItems | None = None
    top: TopItems | None = None

    @property
    def lacks_scores(self) -> bool:
        """Whether the best items are missing because models cannot score the user."""
        return self.top is not None and bool(self.abstaining) and not len(self.top.items)
