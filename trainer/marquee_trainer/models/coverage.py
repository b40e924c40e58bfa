"""The limits by which models use only a part of large data, for the output, manifest and report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.ease import EASEScorer
from marquee_core.scorers.slit import SLITScorer
from marquee_trainer.models.model import Model
from marquee_trainer.models.neighbours.interaction_cut import InteractionCut
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.residual_mf import ResidualMF

_WITH_ITEM_SIMILARITIES = (ItemCF, ResidualMF)


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


def partial_coverage(
    models: Iterable[Model], matrix: RatingsMatrix
) -> Mapping[str, Coverage | InteractionCut]:
    """What each model that uses only a part of the data uses, by model name.

    Args:
        models: The fitted models.
        matrix: The ratings that they were fitted on.
    """
    found: dict[str, Coverage | InteractionCut] = {}
    cut = InteractionCut.of(matrix)
    for model in models:
        if isinstance(model.scorer, (EASEScorer, SLITScorer)):
            weights = model.scorer.weights
            coverage = Coverage(*weights.coverage, weights.item_count)
            if coverage.dense < coverage.items:
                found[model.name] = coverage
        elif isinstance(model, _WITH_ITEM_SIMILARITIES) and cut is not None:
            found[model.name] = cut
    return found
