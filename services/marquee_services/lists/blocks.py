"""Ranks a block of known users together, in the same steps as Recommend.

In a gateway, each user causes messages, tasks and timeouts, which cost more than scoring a known
user. Here the engines score whole blocks, and all other steps are functions of the gateway: a
backend's plan, the sum with the gateway's own models, the page, and the predicted stars. The
remaining users, without ratings or whom a rating predictor or all models cannot score, are
handled by `single.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from marquee.v1 import types_pb2
from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.ratings import Profiles
from marquee_services.gateway.ranking.filters import EligibleItems, filter_mask
from marquee_services.gateway.ranking.own_models import own_best, own_outputs, own_ranking
from marquee_services.gateway.ranking.pages import cut_page
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.lists.exact import exact_engine
from marquee_services.lists.release import LoadedRelease
from marquee_services.lists.request import ListRequest
from marquee_services.lists.user_list import UserList
from marquee_services.scoring.plan import Query
from marquee_services.scoring.ranking import UserRanking, rank

_NO_ITEMS = np.empty(0, np.int32)
_NO_RATINGS = np.empty(0, np.float32)
# The most users in a block: enough for scoring to outweigh its preparation, but few enough that the
# scores of a block (4 bytes for each model, user and item) take only tens of megabytes.
_MAX_USERS, _MAX_SCORES = 256, 4_000_000


def block_users(items: int) -> int:
    """The number of users to rank together, which limits the scores in memory.

    Args:
        items: The number of items of the catalogue.
    """
    return max(1, min(_MAX_USERS, _MAX_SCORES // max(1, items)))


class BlockRanker:
    """Ranks blocks of users with the whole ensemble of a release."""

    def __init__(self, loaded: LoadedRelease, request: ListRequest) -> None:
        """Prepares what all users share.

        Args:
            loaded: The release and its engines.
            request: The kind of lists, for which `can_rank` must be true.
        """
        release, options = loaded.gateway, request.recommend_options
        self._loaded = loaded
        self._engines = {name: exact_engine(engine) for name, engine in loaded.engines.items()}
        self._size = request.size
        self._best_count = max(request.size, DEFAULT_PAGE_SIZE)
        self._include_seen = options.include_seen
        self._eligible, _ = filter_mask(release, options.filter)
        if not options.filter.allowed_item_ids:
            self._eligible[release.unrated_items] = False
        self._blends = release.ensemble.by_backends[release.backends]
        self._plans = {
            name: plan
            for name in sorted(release.backends)
            if (plan := release.plan(self._blends, name, self._best_count, self._size)).weights
        }
        self.block_users = block_users(release.item_count)

    @staticmethod
    def can_rank(loaded: LoadedRelease, request: ListRequest) -> bool:
        """Returns whether lists of this kind can be ranked in blocks.

        Lists with reasons, or with other items than the best of the whole catalogue, cannot.
        """
        options = request.recommend_options
        return (
            loaded.gateway.item_count <= request.dense_limit
            and not options.model
            and not options.include_reasons
            and options.diversity <= 0
            and not options.HasField("min_predicted_stars")
        )

    def rank(self, users: Int32) -> list[UserList | None]:
        """Ranks for users of the release who have ratings.

        Args:
            users: The users' indexes (int32, B).

        Returns:
            Each user's list; None if a rating predictor abstains, or all models do.
        """
        profiles = self._loaded.gateway.data.matrix.profiles(users)
        eligible = np.repeat(self._eligible[None, :], len(users), axis=0)
        if not self._include_seen:
            eligible[profiles.rows, profiles.items] = False
        queries = [
            Query(user, _NO_ITEMS, _NO_RATINGS, None, row)
            for user, row in zip(users.tolist(), eligible, strict=True)
        ]
        found = [rank(self._engines[name], queries, plan) for name, plan in self._plans.items()]
        subjects = self._subjects(users, profiles)
        ranked: list[RankedCandidates | None] = []
        for index, subject in enumerate(subjects):
            parts = [rankings[index] for rankings in found]
            is_complete = self._ranks_without(name for part in parts for name in part.abstaining)
            own = self._ranked(subject, parts, eligible[index]) if is_complete else None
            ranked.append(own)
        return self._pages(subjects, ranked, eligible)

    def _ranks_without(self, abstaining: Iterable[str]) -> bool:
        """Returns whether the models that abstain are rankers only, which add nothing to a sum."""
        names = set(abstaining)
        stars_models = self._loaded.gateway.stars_models
        return not names & stars_models and not self._blends.ranking.weights.keys() <= names

    def _subjects(self, users: Int32, profiles: Profiles) -> list[ResolvedSubject]:
        data = self._loaded.gateway.data
        subjects = []
        biases = data.baseline.user_bias(profiles).tolist()
        for user, bias in zip(users.tolist(), biases, strict=True):
            subject = ResolvedSubject(
                types_pb2.SUBJECT_KIND_KNOWN,
                user,
                _NO_ITEMS,
                _NO_RATINGS,
                (),
                data,
            )
            subject.set_bias(bias)  # Already computed for the whole block.
            subjects.append(subject)
        return subjects

    def _ranked(
        self, subject: ResolvedSubject, parts: Sequence[UserRanking], eligible: Bool
    ) -> RankedCandidates:
        """Sums the scores of the backends and the gateway's own models, as `Router.rank` does."""
        release, blend = self._loaded.gateway, self._blends.ranking
        scores = own_ranking(release, subject, None, blend, ())
        # The row already excludes unrated and seen items.
        items = EligibleItems(release, subject, eligible, only_rated=False, only_unseen=False)
        best = own_best(release, subject, blend, None, items, self._best_count)
        for part in parts:
            scores += part.scores
            best.update(part.best)
        return RankedCandidates(
            items=None,
            scores=scores,
            best=best,
            best_count=self._best_count,
            blends=self._blends,
            backends=release.backends,
            abstaining=tuple(name for part in parts for name in part.abstaining),
            scored=tuple(part.stars for part in parts if part.stars is not None),
        )

    def _pages(
        self,
        subjects: Sequence[ResolvedSubject],
        ranked: Sequence[RankedCandidates | None],
        eligible: Bool,
    ) -> list[UserList | None]:
        """Cuts each user's page, and predicts its stars, as `PageScorer` does."""
        release = self._loaded.gateway
        positions = [
            None
            if one is None
            else cut_page(one, allowed, 0.0, release.item_vectors, 0, self._size).positions
            for one, allowed in zip(ranked, eligible, strict=True)
        ]
        outputs = self._outputs(subjects, ranked, positions)
        user_ids = release.users.ids([subject.user for subject in subjects])
        lists: list[UserList | None] = []
        for user_id, one, page, scores in zip(user_ids, ranked, positions, outputs, strict=True):
            if one is None or page is None or scores is None:
                lists.append(None)
                continue
            stars = None
            if release.predicts_stars:
                data = release.manifest.data
                scale = data.rating_min, data.rating_max
                scored = ScoredCandidates(scores, self._blends, scale, (), ())
                stars = scored.stars.astype(np.float32)
            lists.append(
                UserList(
                    user_id,
                    page,
                    one.scores[page],
                    stars,
                    one.proposers(page),
                    one.abstaining,
                )
            )
        return lists

    def _outputs(
        self,
        subjects: Sequence[ResolvedSubject],
        ranked: Sequence[RankedCandidates | None],
        positions: Sequence[Int32 | None],
    ) -> list[dict[str, Float32] | None]:
        """Scores the items of each page with the models of the rating blend, as in `Router.score`.

        Returns:
            For each user, the scores by model (float32, n); None if the user has no page, or a
            model abstains.
        """
        release = self._loaded.gateway
        outputs: list[dict[str, Float32] | None] = [
            None
            if one is None or page is None
            else {**own_outputs(release, subject, page), **one.known_scores(page)}
            for subject, one, page in zip(subjects, ranked, positions, strict=True)
        ]
        for backend, engine in self._engines.items():
            needed = [name for name, _ in release.weights_of(self._blends.rating, backend)]
            missing: dict[tuple[str, ...], list[int]] = {}
            for index, known in enumerate(outputs):
                if known is not None:
                    names = tuple(name for name in needed if name not in known)
                    missing.setdefault(names, []).append(index)
            for names, indexes in missing.items():
                if not names:
                    continue
                queries = [
                    Query(subjects[index].user, _NO_ITEMS, _NO_RATINGS, positions[index])
                    for index in indexes
                ]
                found = engine.score_requests([[query] for query in queries], names)
                for index, scores in zip(indexes, found, strict=True):
                    known = outputs[index]
                    if known is not None:
                        known |= scores
        return [None if known is None or _abstains(known) else known for known in outputs]


def _abstains(outputs: dict[str, Float32]) -> bool:
    """Returns whether a model abstains, in which case its scores are NaN."""
    # Only NaN is not equal to itself.
    return any(len(scores) and scores[0] != scores[0] for scores in outputs.values())
