"""Scorers of a whole catalogue, made from models of its rated items.

The size of a model grows with its number of items. If most items of a large catalogue have no
ratings, models are fitted and stored for the rated items only. The other items get the score of an
item about which the model has learned nothing: the baseline's prediction for a rating predictor,
and 0 for a ranker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, positions_of, save_array
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.scorer import (
    Approximates,
    ComparesItems,
    ExplainsByItems,
    ExplainsByNeighbours,
    LoadScorer,
    NeighbourEvidence,
    RatedEvidence,
    ReleaseData,
    Scorer,
    WarmsUp,
    score_pairs,
)

_FILE = "modelled_items.npy"


def restrict_to_items(data: ReleaseData, items: Int32) -> ReleaseData:
    """Restricts the data of a catalogue to some items, which are renumbered from 0.

    Args:
        data: The data of a catalogue.
        items: The items to keep, ascending, which include all rated items (int32, m).
    """
    matrix, recency = data.matrix, data.recency
    renumbered = positions_of(items, matrix.item_count)[matrix.items]
    return replace(
        data,
        matrix=replace(matrix, items=renumbered, item_count=len(items)),
        baseline=replace(data.baseline, item_bias=data.baseline.item_bias[items]),
        recency=None if recency is None else replace(recency, counts=recency.counts[items]),
    )


def expand_to_catalogue(data: ReleaseData, items: Int32, item_count: int) -> ReleaseData:
    """Expands the data of a catalogue's rated items to the whole catalogue.

    This is the inverse of `restrict_to_items`.

    Args:
        data: The data of the items.
        items: Their indexes in the catalogue, ascending (int32, m).
        item_count: The number of items in the catalogue.
    """
    matrix, recency = data.matrix, data.recency
    bias = np.zeros(item_count, np.float32)
    bias[items] = data.baseline.item_bias
    if recency is not None:
        counts = np.zeros(item_count, np.float32)
        counts[items] = recency.counts
        recency = replace(recency, counts=counts)
    return replace(
        data,
        matrix=replace(matrix, items=items[matrix.items], item_count=item_count),
        baseline=replace(data.baseline, item_bias=bias),
        recency=recency,
    )


def save_modelled_items(folder: Path, items: Int32) -> None:
    """Records in a model's folder that it covers only the given items (int32, ascending)."""
    save_array(folder / _FILE, items)


def load_scorer(load: LoadScorer, folder: Path, data: ReleaseData) -> Scorer:
    """Loads the scorer of a model that may cover only a part of the catalogue.

    Args:
        load: Loads a scorer that covers all items of the data.
        folder: The folder of the model's artifacts.
        data: The data of the release.

    Raises:
        ArtifactError: An artifact is missing, damaged, or does not fit the data.
    """
    if not (folder / _FILE).exists():
        return load(folder, data)
    items = load_array(folder / _FILE, np.int32, (None,))
    count = data.matrix.item_count
    if len(items) and not (items[0] >= 0 and items[-1] < count and (np.diff(items) > 0).all()):
        raise ArtifactError(f"{_FILE}: values must be ascending item indexes of the catalogue")
    if (positions_of(items, count)[data.matrix.items] < 0).any():
        raise ArtifactError(f"{_FILE}: a rated item is missing")
    return extend_to_catalogue(load(folder, restrict_to_items(data, items)), items, data)


def extend_to_catalogue(scorer: Scorer, items: Int32, data: ReleaseData) -> Scorer:
    """Extends a scorer of some items to the whole catalogue.

    The result implements the same optional protocols as the given scorer, such as `Approximates`.

    Args:
        scorer: The scorer of the items.
        items: Their indexes in the catalogue, ascending (int32, m).
        data: The data of the whole catalogue.
    """
    parts = tuple(part for protocol, part in _PARTS if isinstance(scorer, protocol))
    made: Scorer = _class_of(parts)(scorer, items, data)
    return made


class _CatalogueScorer:
    """Scores the whole catalogue with a scorer of some of its items."""

    def __init__(self, scorer: Any, items: Int32, data: ReleaseData) -> None:
        self._scorer = scorer
        self._items = items
        self._data = data
        self._positions = positions_of(items, data.matrix.item_count)

    @property
    def output(self) -> Output:
        """See `Scorer.output`."""
        return cast("Scorer", self._scorer).output

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        covered = self._covered(profiles)
        if items is None:
            return self._over_all(profiles, self._scorer.score(covered))
        positions = self._positions[items]
        known = positions >= 0
        scores = self._unknown(profiles, items)
        if known.any():
            scores[:, known] = self._scorer.score(covered, positions[known])
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        positions = self._positions[items]
        scores = score_pairs(self._scorer, self._covered(profiles), np.maximum(positions, 0))
        unknown = positions < 0
        if unknown.any():
            scores[unknown] = self._unknown_pairs(profiles, items)[unknown]
        return scores

    def _covered(self, profiles: Profiles) -> Profiles:
        """Returns the profiles with the item indexes of the scorer, limited to its items."""
        return profiles.cached(self, "covered items", lambda: self._renumbered(profiles))

    def _renumbered(self, profiles: Profiles) -> Profiles:
        positions = self._positions[profiles.items]
        known = positions >= 0
        if known.all():
            return replace(profiles, items=positions)
        indptr = np.zeros_like(profiles.indptr)
        np.cumsum(np.bincount(profiles.rows[known], minlength=len(profiles)), out=indptr[1:])
        return replace(
            profiles,
            indptr=indptr,
            items=positions[known],
            ratings=profiles.ratings[known],
            later_counts=profiles.later_counts[known],
        )

    def _over_all(self, profiles: Profiles, known: Float32) -> Float32:
        """Returns the scores of all items, given those of the known items (float32, B × items)."""
        scores = self._unknown(profiles, None)
        scores[:, self._items] = known
        # Keep a row of NaN, which means that the model cannot score the user.
        scores[np.isnan(known[:, :1]).any(axis=1)] = np.nan
        return scores

    def _unknown(self, profiles: Profiles, items: Int32 | None) -> Float32:
        """Returns the scores of items that the model does not cover (float32, B × C)."""
        count = len(self._positions) if items is None else len(items)
        if self.output is Output.STARS:
            return self._data.baseline.score(profiles, items)
        return np.zeros((len(profiles), count), np.float32)

    def _unknown_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """Returns the same as `_unknown`, for different items of each user (float32, B × C)."""
        if self.output is not Output.STARS:
            return np.zeros(items.shape, np.float32)
        baseline = self._data.baseline
        return baseline.score_pairs(profiles, items)


class _WithApproximation(_CatalogueScorer):
    def approximate(self, profiles: Profiles, items: Int32 | None = None) -> Float32 | None:
        """See `Approximates.approximate`."""
        scorer, covered = cast("Approximates", self._scorer), self._covered(profiles)
        if items is None:
            everything = scorer.approximate(covered)
            return None if everything is None else self._over_all(profiles, everything)
        positions = self._positions[items]
        known = positions >= 0
        found = scorer.approximate(covered, positions[known])
        if found is None:
            return None
        scores = self._unknown(profiles, items)
        scores[:, known] = found
        return scores


class _WithSimilarities(_CatalogueScorer):
    def similarities(self, item: int) -> Float32:
        """See `ComparesItems.similarities`; an unknown item is similar only to itself."""
        row = np.zeros(len(self._positions), np.float32)
        position = int(self._positions[item])
        if position >= 0:
            row[self._items] = cast("ComparesItems", self._scorer).similarities(position)
        row[item] = 1.0
        return row


class _WithRatedEvidence(_CatalogueScorer):
    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`; an item not covered has a remainder only."""
        positions = self._positions[items]
        known = np.flatnonzero(positions >= 0)
        scorer = cast("ExplainsByItems", self._scorer)
        found = scorer.rated_evidence(self._covered(profile), positions[known], count)
        nothing = np.empty(0, np.float32)
        remainders = self._unknown(profile, items)[0].tolist()
        evidence = [
            RatedEvidence(np.empty(0, np.int32), nothing, nothing, 0.0, score)
            for score in remainders
        ]
        for position, entry in zip(known.tolist(), found, strict=True):
            evidence[position] = replace(entry, items=self._items[entry.items])
        return evidence


class _WithNeighbourEvidence(_CatalogueScorer):
    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """See `ExplainsByNeighbours.neighbour_evidence`; an item not covered has no ratings."""
        positions = self._positions[items]
        known = np.flatnonzero(positions >= 0)
        scorer = cast("ExplainsByNeighbours", self._scorer)
        evidence = [NeighbourEvidence(0, 0.0, 0.0)] * len(items)
        found = scorer.neighbour_evidence(self._covered(profile), positions[known])
        for position, entry in zip(known.tolist(), found, strict=True):
            evidence[position] = entry
        return evidence


class _WithWarmUp(_CatalogueScorer):
    def warm_up(self) -> None:
        """See `WarmsUp.warm_up`."""
        cast("WarmsUp", self._scorer).warm_up()


_PARTS: tuple[tuple[type, type[_CatalogueScorer]], ...] = (
    (Approximates, _WithApproximation),
    (ComparesItems, _WithSimilarities),
    (ExplainsByItems, _WithRatedEvidence),
    (ExplainsByNeighbours, _WithNeighbourEvidence),
    (WarmsUp, _WithWarmUp),
)


@lru_cache
def _class_of(parts: tuple[type[_CatalogueScorer], ...]) -> Callable[..., Any]:
    """Returns a class that combines mixins, so that it implements their protocols."""
    return type("CatalogueScorer", parts or (_CatalogueScorer,), {})
