"""Models of a part of the catalogue, and their scores of the whole.

Models grow with the items that they know. If most items of a large catalogue have no ratings,
models are fitted and stored for the rated ones alone. The others have the scores that a model gives
to an item that it has learned nothing about: the baseline's prediction, or 0 if it only ranks.
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
    """Returns the data of some items, renumbered in their order.

    Args:
        data: The data of a catalogue.
        items: The items to keep, ascending; all ratings are of these (int32, m).
    """
    matrix, recency = data.matrix, data.recency
    own = positions_of(items, matrix.item_count)[matrix.items]
    return replace(
        data,
        matrix=replace(matrix, items=own, item_count=len(items)),
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
    """Notes in the folder of a model that it knows only these items (int32, ascending)."""
    save_array(folder / _FILE, items)


def load_scorer(load: LoadScorer, folder: Path, data: ReleaseData) -> Scorer:
    """Loads the scorer of a model, which may know only a part of the catalogue.

    Args:
        load: Loads a scorer that knows all items of the data.
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
    """Returns a scorer of the whole catalogue from one of some of its items.

    It approximates and explains if the given scorer does.

    Args:
        scorer: The scorer of the items.
        items: Their indexes in the catalogue, ascending (int32, m).
        data: The data of the whole catalogue.
    """
    parts = tuple(part for protocol, part in _PARTS if isinstance(scorer, protocol))
    made: Scorer = _class_of(parts)(scorer, items, data)
    return made


class _CatalogueScorer:
    """Scores a catalogue by a scorer of some of its items."""

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
        own = self._own(profiles)
        if items is None:
            return self._over_all(profiles, self._scorer.score(own))
        positions = self._positions[items]
        known = positions >= 0
        scores = self._unknown(profiles, items)
        if known.any():
            scores[:, known] = self._scorer.score(own, positions[known])
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        positions = self._positions[items]
        scores = score_pairs(self._scorer, self._own(profiles), np.maximum(positions, 0))
        unknown = positions < 0
        if unknown.any():
            scores[unknown] = self._unknown_pairs(profiles, items)[unknown]
        return scores

    def similarities(self, item: int) -> Float32 | None:
        """See `Scorer.similarities`: an item that the model does not know is like no other."""
        row = np.zeros(len(self._positions), np.float32)
        position = int(self._positions[item])
        found = self._scorer.similarities(max(position, 0))
        if found is None:
            return None
        if position >= 0:
            row[self._items] = found
        row[item] = 1.0
        return row

    def _own(self, profiles: Profiles) -> Profiles:
        """The profiles in the numbers of the scorer, without ratings of items it does not know."""
        return profiles.cached(self, "own items", lambda: self._renumbered(profiles))

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

    def _over_all(self, profiles: Profiles, own: Float32) -> Float32:
        """Scores of all items from those of the known ones (float32, B × items)."""
        scores = self._unknown(profiles, None)
        scores[:, self._items] = own
        # A row of NaN stays one: the model cannot score that user.
        scores[np.isnan(own[:, :1]).any(axis=1)] = np.nan
        return scores

    def _unknown(self, profiles: Profiles, items: Int32 | None) -> Float32:
        """Returns the scores of items that the model does not know (float32, B × C)."""
        count = len(self._positions) if items is None else len(items)
        if self.output is Output.STARS:
            return self._data.baseline.score(profiles, items)
        return np.zeros((len(profiles), count), np.float32)

    def _unknown_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """As `_unknown`, for other items of each user (float32, B × C)."""
        if self.output is not Output.STARS:
            return np.zeros(items.shape, np.float32)
        baseline = self._data.baseline
        return baseline.score_pairs(profiles, items)


class _WithApproximation(_CatalogueScorer):
    def approximate(self, profiles: Profiles, items: Int32 | None = None) -> Float32 | None:
        """See `Approximates.approximate`."""
        scorer, own = cast("Approximates", self._scorer), self._own(profiles)
        if items is None:
            everything = scorer.approximate(own)
            return None if everything is None else self._over_all(profiles, everything)
        positions = self._positions[items]
        known = positions >= 0
        found = scorer.approximate(own, positions[known])
        if found is None:
            return None
        scores = self._unknown(profiles, items)
        scores[:, known] = found
        return scores


class _WithRatedEvidence(_CatalogueScorer):
    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`; other items' scores are all remainder."""
        positions = self._positions[items]
        known = np.flatnonzero(positions >= 0)
        scorer = cast("ExplainsByItems", self._scorer)
        found = scorer.rated_evidence(self._own(profile), positions[known], count)
        nothing = np.empty(0, np.float32)
        remainders = self._unknown(profile, items)[0].tolist()
        evidence = [
            RatedEvidence(np.empty(0, np.int32), nothing, nothing, 0.0, score)
            for score in remainders
        ]
        for position, own in zip(known.tolist(), found, strict=True):
            evidence[position] = replace(own, items=self._items[own.items])
        return evidence


class _WithNeighbourEvidence(_CatalogueScorer):
    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """See `ExplainsByNeighbours.neighbour_evidence`: nobody rated the other items."""
        positions = self._positions[items]
        known = np.flatnonzero(positions >= 0)
        scorer = cast("ExplainsByNeighbours", self._scorer)
        evidence = [NeighbourEvidence(0, 0.0, 0.0)] * len(items)
        found = scorer.neighbour_evidence(self._own(profile), positions[known])
        for position, own in zip(known.tolist(), found, strict=True):
            evidence[position] = own
        return evidence


class _WithWarmUp(_CatalogueScorer):
    def warm_up(self) -> None:
        """See `WarmsUp.warm_up`."""
        cast("WarmsUp", self._scorer).warm_up()


_PARTS: tuple[tuple[type, type[_CatalogueScorer]], ...] = (
    (Approximates, _WithApproximation),
    (ExplainsByItems, _WithRatedEvidence),
    (ExplainsByNeighbours, _WithNeighbourEvidence),
    (WarmsUp, _WithWarmUp),
)


@lru_cache
def _class_of(parts: tuple[type[_CatalogueScorer], ...]) -> Callable[..., Any]:
    """A class with the abilities of the parts; protocols are recognised by a class's methods."""
    return type("CatalogueScorer", parts or (_CatalogueScorer,), {})
