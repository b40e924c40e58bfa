"""The coverage of a large catalogue by models with weights between items."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from marquee_core.scorers.ease import EASEScorer
from marquee_core.scorers.slit import SLITScorer
from marquee_trainer.models.model import Model


@dataclass(frozen=True)
class Coverage:
    """How many items of a catalogue have dense, sparse or no weights.

    Attributes:
        dense: Items with weights from and to each other.
        sparse: Further items, with weights from and to a few of the dense ones.
        items: All items of the catalogue. Those without weights score 0.
    """

    dense: int
    sparse: int
    items: int

    def __str__(self) -> str:
        without = self.items - self.dense - self.sparse
        return (
            f"of {self.items:,} items, {self.dense:,} have dense weights, {self.sparse:,} sparse "
            f"ones and {without:,} none"
        )


def partial_coverage(models: Iterable[Model]) -> dict[str, Coverage]:
    """The coverage of each model that lacks dense weights for some items, by model name."""
    found = {}
    for model in models:
        if isinstance(model.scorer, (EASEScorer, SLITScorer)):
            weights = model.scorer.weights
            coverage = Coverage(*weights.coverage, weights.item_count)
            if coverage.dense < coverage.items:
                found[model.name] = coverage
    return found
