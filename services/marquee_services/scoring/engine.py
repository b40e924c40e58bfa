"""What a scoring server does with a loaded release; knows nothing of gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.ratings import Profiles, join_profiles
from marquee_core.retrieval.exact import Found, ItemIndex, ScoresByProduct
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.scorer import (
    ExplainsByItems,
    ExplainsByNeighbours,
    NeighbourEvidence,
    RatedEvidence,
    ReleaseData,
    Scorer,
)
from marquee_services.errors import FieldViolation, InvalidFields, ModelNotFound


@dataclass(frozen=True)
class Query:
    """One user of a request.

    Attributes:
        user: The user's index; -1 for a visitor.
        items: Items rated in the request, the latest last (int32).
        ratings: Their ratings in stars (float32).
        candidates: The items to score (int32); None for the whole catalogue.
    """

    user: int
    items: Int32
    ratings: Float32
    candidates: Int32 | None


@dataclass(frozen=True)
class Evidence:
    """What in a user's profile speaks for an item; None from a model that is not here."""

    rated: RatedEvidence | None
    neighbours: NeighbourEvidence | None


@dataclass(frozen=True, eq=False)
class Engine:
    """The models of one backend, of one release.

    Attributes:
        release_id: The release.
        data: What its models build on.
        scorers: The models, by name.
        indexes: Of models whose scores are products, what finds their best items.
    """

    release_id: str
    data: ReleaseData
    scorers: Mapping[str, Scorer]
    indexes: Mapping[str, ItemIndex] = field(default_factory=dict)

    def pick(self, models: Sequence[str]) -> Mapping[str, Scorer]:
        """The models of those names; all for none.

        Raises:
            ModelNotFound: There is no such model here.
        """
        for name in models:
            if name not in self.scorers:
                raise ModelNotFound(name)
        return {name: self.scorers[name] for name in models} if models else self.scorers

    def check(self, queries: Sequence[Query]) -> None:
        """Checks that users and items are this release's, and that ratings are numbers.

        Raises:
            InvalidFields: A query is not of this release.
        """
        violations = [v for place, query in enumerate(queries) for v in self._faults(place, query)]
        if violations:
            raise InvalidFields(violations)

    def _faults(self, place: int, query: Query) -> list[FieldViolation]:
        violations = []
        count = self.data.matrix.item_count
        prefix = f"users[{place}]"
        if not -1 <= query.user < self.data.matrix.user_count:
            violations.append(FieldViolation(f"{prefix}.user_index", "no such user"))
        if len(query.items) != len(query.ratings):
            violations.append(FieldViolation(f"{prefix}.ratings", "not one for each rated item"))
        elif not np.isfinite(query.ratings).all():
            violations.append(FieldViolation(f"{prefix}.ratings", "not finite"))
        if len(np.unique(query.items)) != len(query.items):
            violations.append(FieldViolation(f"{prefix}.rated_items", "an item twice"))
        for name, items in (("rated_items", query.items), ("candidates", query.candidates)):
            if items is not None and len(items) and not 0 <= items.min() <= items.max() < count:
                violations.append(FieldViolation(f"{prefix}.{name}", "no such item"))
        return violations

    def candidate_count(self, query: Query) -> int:
        """How many scores a query gets of each model."""
        items = self.data.matrix.item_count
        return items if query.candidates is None else len(query.candidates)

    def profiles(self, queries: Sequence[Query]) -> Profiles:
        """The profiles of users, whose queries are checked."""
        matrix = self.data.matrix
        if all(query.user >= 0 and not len(query.items) for query in queries):
            return matrix.profiles([query.user for query in queries])
        return join_profiles([matrix.profile(q.user, q.items, q.ratings) for q in queries])

    def score(self, queries: Sequence[Query], models: Sequence[str]) -> dict[str, Float32]:
        """Scores each user's candidates with each model.

        Args:
            queries: The users, checked.
            models: The models; all for none.

        Returns:
            By model the scores, user after user (float32, total number of candidates).

        Raises:
            ModelNotFound: There is no such model here.
        """
        picked = self.pick(models)
        profiles = self.profiles(queries)
        whole = [place for place, query in enumerate(queries) if query.candidates is None]
        if len(whole) == len(queries):
            return {name: scorer.score(profiles).reshape(-1) for name, scorer in picked.items()}
        parts: dict[str, list[Float32]] = {
            name: [np.empty(0, np.float32)] * len(queries) for name in picked
        }
        for name, scorer in picked.items():
            if whole:
                rows = scorer.score(profiles.take(np.array(whole)))
                for place, row in zip(whole, rows, strict=True):
                    parts[name][place] = row
            for place, query in enumerate(queries):
                if query.candidates is not None and len(query.candidates):
                    alone = profiles.take(np.array([place]))
                    parts[name][place] = scorer.score(alone, query.candidates)[0]
        return {name: np.concatenate(rows) for name, rows in parts.items()}

    def retrieve(
        self, queries: Sequence[Query], models: Sequence[str], count: int, eligible: Bool | None
    ) -> dict[str, list[Found]]:
        """Each model's best items for each user.

        Args:
            queries: The users, checked; their candidates do not matter.
            models: The models; all for none.
            count: How many items of each model for each user.
            eligible: Which items qualify (bool, items); None for all.

        Returns:
            By model, for each user, item indexes best first and their scores.

        Raises:
            ModelNotFound: There is no such model here.
        """
        profiles = self.profiles(queries)
        rated = bool((profiles.counts > 0).all())
        best: dict[str, list[Found]] = {}
        for name, scorer in self.pick(models).items():
            index = self.indexes.get(name)
            if rated and index is not None and isinstance(scorer, ScoresByProduct):
                best[name] = index.search(scorer.user_products(profiles), count, eligible)
                continue
            best[name] = []
            for row in scorer.score(profiles):
                top = top_indexes(row, count, eligible)
                best[name].append((top.astype(np.int32), row[top]))
        return best

    def compare(self, item: int) -> dict[str, Float32]:
        """By model, the similarity of an item to every item (float32, items).

        Raises:
            InvalidFields: There is no such item.
        """
        if not 0 <= item < self.data.matrix.item_count:
            raise InvalidFields([FieldViolation("item_index", "no such item")])
        rows = {name: scorer.similarities(item) for name, scorer in self.scorers.items()}
        return {name: row for name, row in rows.items() if row is not None}

    def explain(self, query: Query, count: int) -> list[Evidence]:
        """Evidence for each candidate of a user.

        Args:
            query: The user, checked; its candidates are explained.
            count: Rated items named for each.

        Raises:
            InvalidFields: The query has no candidates.
        """
        if query.candidates is None or not len(query.candidates):
            raise InvalidFields([FieldViolation("user.candidates", "empty")])
        profile = self.profiles([query])
        rated: list[RatedEvidence] | None = None
        neighbours: list[NeighbourEvidence] | None = None
        for scorer in self.scorers.values():
            if isinstance(scorer, ExplainsByItems):
                rated = scorer.rated_evidence(profile, query.candidates, count)
            if isinstance(scorer, ExplainsByNeighbours):
                neighbours = scorer.neighbour_evidence(profile, query.candidates)
        return [
            Evidence(rated[row] if rated else None, neighbours[row] if neighbours else None)
            for row in range(len(query.candidates))
        ]
