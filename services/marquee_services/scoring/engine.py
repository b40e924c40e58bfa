"""Scores with the models of a loaded release, independently of gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32, Int64
from marquee_core.ratings import Profiles, join_profiles
from marquee_core.retrieval.exact import Found, ItemIndex
from marquee_core.scorers.scorer import (
    ComparesItems,
    ExplainsByItems,
    ExplainsByNeighbours,
    NeighbourEvidence,
    RatedEvidence,
    ReleaseData,
    Scorer,
    ScoresCore,
    implements,
    score_pairs,
)
from marquee_services.errors import FieldViolation, InvalidFields, ModelNotFound
from marquee_services.scoring.model_times import NoTimer, Timer
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.retrieval import best_of_all, search

# A batch of users with different items is scored in one pass if each user has at most this many
# items. With more items, gathering the parameters of each user's items costs more than it saves.
_MAX_PAIRS = 64


@dataclass(frozen=True)
class Evidence:
    """The evidence for an item in a user's ratings, by the models that explain their scores.

    Attributes:
        rated: For each model that explains by rated items, the rated items that contribute most.
        neighbours: For each model that explains by neighbours, the similar users who rated the
            item.
    """

    rated: Mapping[str, RatedEvidence]
    neighbours: Mapping[str, NeighbourEvidence]


@dataclass(frozen=True, eq=False)
class Engine:
    """A backend's models of a release.

    Attributes:
        release_id: The release.
        data: The training ratings and the baseline of the release.
        scorers: The scorer of each model, by the model's name.
        indexes: The index that retrieves the best items of a model, by the model's name. Only
            models whose scores are products of vectors have one.
        gateway_scores: The scores of the gateway's own models, which order items in the same way
            for all users, by the model's name (float32, items).
        rankers: The cache of `marquee_services.scoring.ranker`, by plan.
        timer: Measures the time of the models.
        compared: The result of the last `compare`, by the item: a gateway asks for the most similar
            items first, and then for the similarities of all models to these.
    """

    release_id: str
    data: ReleaseData
    scorers: Mapping[str, Scorer]
    indexes: Mapping[str, ItemIndex] = field(default_factory=dict)
    gateway_scores: Mapping[str, Float32] = field(default_factory=dict)
    rankers: dict[RankingPlan, Any] = field(default_factory=dict, repr=False)
    timer: Timer = field(default_factory=NoTimer)
    compared: dict[int, dict[str, Float32]] = field(default_factory=dict, repr=False)

    @cached_property
    def rating_counts(self) -> Int64:
        """The number of training ratings of each item (int64, items)."""
        return self.data.matrix.item_counts

    @cached_property
    def unrated_items(self) -> Int64:
        """The items without training ratings (int64, n)."""
        return np.flatnonzero(self.rating_counts == 0)

    @cached_property
    def known_items(self) -> Bool | None:
        """Whether each item has training ratings (bool, items); None if all have."""
        known = self.rating_counts > 0
        return None if known.all() else known

    def select(self, models: Sequence[str]) -> Mapping[str, Scorer]:
        """Returns the scorers of some models, by name; of all models if no names are given.

        Raises:
            ModelNotFound: This backend lacks one of the models.
        """
        for name in models:
            if name not in self.scorers:
                raise ModelNotFound(name)
        return {name: self.scorers[name] for name in models} if models else self.scorers

    def check(self, queries: Sequence[Query]) -> None:
        """Checks queries against the release.

        Raises:
            InvalidFields: A user or item index is out of range, a rating is not finite, the number
                of ratings differs from that of rated items, or an item is rated twice.
        """
        violations = [
            v for position, query in enumerate(queries) for v in self._violations(position, query)
        ]
        if violations:
            raise InvalidFields(violations)

    def _violations(self, position: int, query: Query) -> list[FieldViolation]:
        violations = []
        count = self.data.matrix.item_count
        prefix = f"users[{position}]"
        if not -1 <= query.user < self.data.matrix.user_count:
            violations.append(FieldViolation(f"{prefix}.user_index", "no user has this index"))
        if len(query.items) != len(query.ratings):
            violations.append(
                FieldViolation(
                    f"{prefix}.ratings",
                    "the number of ratings differs from the number of rated items",
                )
            )
        elif not np.isfinite(query.ratings).all():
            violations.append(FieldViolation(f"{prefix}.ratings", "a rating is not finite"))
        ordered = np.sort(query.items)
        if (ordered[1:] == ordered[:-1]).any():
            violations.append(FieldViolation(f"{prefix}.rated_items", "an item occurs twice"))
        for name, items in (("rated_items", ordered), ("candidates", query.candidates)):
            if items is not None and len(items) and not 0 <= items.min() <= items.max() < count:
                violations.append(FieldViolation(f"{prefix}.{name}", "no item has this index"))
        return violations

    def candidate_count(self, query: Query) -> int:
        """Returns the number of scores that each model computes for a query."""
        items = self.data.matrix.item_count
        return items if query.candidates is None else len(query.candidates)

    def profiles(self, queries: Sequence[Query]) -> Profiles:
        """Returns the rating profiles of checked queries."""
        matrix = self.data.matrix
        if all(query.user >= 0 and not len(query.items) for query in queries):
            return matrix.profiles([query.user for query in queries])
        return join_profiles([matrix.profile(q.user, q.items, q.ratings) for q in queries])

    def score(self, queries: Sequence[Query], models: Sequence[str]) -> dict[str, Float32]:
        """Scores each user's candidates with each model.

        Args:
            queries: The users; they must have passed `check`.
            models: Names of the models; empty for all.

        Returns:
            The scores of each model by name, user after user (float32, total number of
            candidates).

        Raises:
            ModelNotFound: This backend lacks one of the models.
        """
        selected = self.select(models)
        profiles = self.profiles(queries)
        whole_catalogue = [
            position for position, query in enumerate(queries) if query.candidates is None
        ]
        if len(whole_catalogue) == len(queries):
            return {
                name: self.timer.run(name, "score", scorer.score, profiles).reshape(-1)
                for name, scorer in selected.items()
            }
        parts: dict[str, list[Float32]] = {
            name: [np.empty(0, np.float32)] * len(queries) for name in selected
        }
        groups = _groups_by_length(queries)
        for name, scorer in selected.items():
            if whole_catalogue:
                part = profiles.take(np.array(whole_catalogue))
                rows = self.timer.run(name, "score", scorer.score, part)
                for position, row in zip(whole_catalogue, rows, strict=True):
                    parts[name][position] = row
            for positions, items in groups:
                if items.shape[1] > _MAX_PAIRS:
                    for position, own in zip(positions, items, strict=True):
                        parts[name][position] = scorer.score(profiles.single(position), own)[0]
                    continue
                part = profiles.take(np.array(positions))
                rows = self.timer.run(name, "score", score_pairs, scorer, part, items)
                for position, row in zip(positions, rows, strict=True):
                    parts[name][position] = row
        for position, query in enumerate(queries):
            if query.candidates is not None:
                for own_rows in parts.values():
                    own_rows[position] = own_rows[position][: len(query.candidates)]
        return {name: np.concatenate(own_rows) for name, own_rows in parts.items()}

    def score_requests(
        self, requests: Sequence[Sequence[Query]], models: Sequence[str]
    ) -> list[dict[str, Float32]]:
        """Scores the users of several requests in one batch.

        Args:
            requests: The users of each request; they must have passed `check`.
            models: Names of the models; empty for all.

        Returns:
            For each request, the result of `score` for its users.

        Raises:
            ModelNotFound: This backend lacks one of the models.
        """
        scores = self.score([query for queries in requests for query in queries], models)
        parts, start = [], 0
        for queries in requests:
            end = start + sum(self.candidate_count(query) for query in queries)
            parts.append({name: values[start:end] for name, values in scores.items()})
            start = end
        return parts

    def retrieve(
        self, queries: Sequence[Query], models: Sequence[str], count: int, eligible: Bool | None
    ) -> dict[str, list[Found]]:
        """Retrieves each model's best items for each user.

        If there are several models and some can search, the others are skipped, because they would
        have to score the whole catalogue; they score the retrieved candidates later. A single model
        without an index scores the whole catalogue.

        Args:
            queries: The users; they must have passed `check`. Their candidates are ignored.
            models: Names of the models; empty for all.
            count: The number of items from each model for each user.
            eligible: Whether each item may be retrieved (bool, items); None to allow all.

        Returns:
            For each model that searched, by name, and for each user: item indexes, the best first,
            and scores.

        Raises:
            ModelNotFound: This backend lacks one of the models.
        """
        profiles = self.profiles(queries)
        selected = self.select(models)
        is_single = len(selected) == 1
        searching = {
            name: scorer
            for name, scorer in selected.items()
            if name in self.indexes or (not is_single and implements(type(scorer), ScoresCore))
        }
        best: dict[str, list[Found]] = {}
        for name, scorer in (searching or selected).items():
            find = partial(search, self.indexes.get(name)) if searching else best_of_all
            best[name] = self.timer.run(name, "retrieve", find, scorer, profiles, count, eligible)
        return best

    def compare(self, item: int) -> dict[str, Float32]:
        """Returns the similarities of an item to all items (float32, items), by the model's name.

        Raises:
            InvalidFields: No item has this index.
        """
        if not 0 <= item < self.data.matrix.item_count:
            raise InvalidFields([FieldViolation("item_index", "no item has this index")])
        found = self.compared.get(item)
        if found is None:
            found = {
                name: self.timer.run(name, "compare", scorer.similarities, item)
                for name, scorer in self.scorers.items()
                if isinstance(scorer, ComparesItems)
            }
            self.compared.clear()
            self.compared[item] = found
        return found

    def explain(self, query: Query, models: Sequence[str], count: int) -> list[Evidence]:
        """Explains each candidate of a user.

        Args:
            query: The user and the candidates; it must have passed `check`.
            models: Names of the models; empty for all.
            count: The most rated items to return for each candidate and model.

        Raises:
            InvalidFields: The query has no candidates.
            ModelNotFound: This backend lacks one of the models.
        """
        if query.candidates is None or not len(query.candidates):
            raise InvalidFields([FieldViolation("user.candidates", "there are no candidates")])
        profile = self.profiles([query])
        rated: dict[str, list[RatedEvidence]] = {}
        neighbours: dict[str, list[NeighbourEvidence]] = {}
        for name, scorer in self.select(models).items():
            if isinstance(scorer, ExplainsByItems):
                rated[name] = self.timer.run(
                    name, "explain", scorer.rated_evidence, profile, query.candidates, count
                )
            if isinstance(scorer, ExplainsByNeighbours):
                neighbours[name] = self.timer.run(
                    name, "explain", scorer.neighbour_evidence, profile, query.candidates
                )
        return [
            Evidence(
                {name: rows[row] for name, rows in rated.items()},
                {name: rows[row] for name, rows in neighbours.items()},
            )
            for row in range(len(query.candidates))
        ]


def _groups_by_length(queries: Sequence[Query]) -> list[tuple[list[int], Int32]]:
    """Groups the users with candidates, so that the users of a group have about the same number.

    Returns:
        For each group, the positions of its users, and their candidates, padded to a power of two
        with the first candidate (int32, group size × length).
    """
    groups: dict[int, list[int]] = {}
    for position, query in enumerate(queries):
        if query.candidates is not None and len(query.candidates):
            length = 1 << (len(query.candidates) - 1).bit_length()
            groups.setdefault(length, []).append(position)
    padded = []
    for length, positions in groups.items():
        items = np.empty((len(positions), length), dtype=np.int32)
        for row, position in enumerate(positions):
            own = queries[position].candidates
            assert own is not None  # noqa: S101 - groups contain only users with candidates
            items[row, : len(own)] = own
            items[row, len(own) :] = own[0]
        padded.append((positions, items))
    return padded
