"""Splits a backend's response for a batch of users into one result for each user."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from marquee.v1 import scoring_service_pb2 as pb
from marquee_core.arrays import Float32
from marquee_services.gateway.backends.ranking import BackendRanking
from marquee_services.scoring.plan import BestItems, Query, TopItems
from marquee_services.server.wire import unpack_floats, unpack_ints


def unpack_scores(
    queries: Sequence[Query], response: pb.ScoreItemsResponse
) -> list[dict[str, Float32]]:
    """Returns the scores of each user's candidates by model (float32, read-only).

    Raises:
        ValueError: The lengths of the arrays do not match the queries.
    """
    scores = {model.model: unpack_floats("scores", model.scores) for model in response.models}
    if not scores:
        return [{} for _ in queries]
    ends = _ends(queries, len(next(iter(scores.values()))))
    if any(len(values) != ends[-1] for values in scores.values()):
        raise ValueError("wrong number of scores")
    return [
        {name: values[start:end] for name, values in scores.items()}
        for start, end in pairwise([0, *ends])
    ]


def unpack_rankings(
    queries: Sequence[Query], response: pb.RankItemsResponse
) -> list[BackendRanking]:
    """Returns the ranking of each user.

    Raises:
        ValueError: The lengths of the arrays do not match the queries.
    """
    if response.HasField("top"):
        return _unpack_tops(len(queries), response)
    scores = unpack_floats("scores", response.scores)
    ends = _ends(queries, len(scores))
    if ends[-1] != len(scores):
        raise ValueError("wrong number of scores")
    stars = _unpack_best(len(queries), response)
    rankings = [
        BackendRanking(scores[start:end], {}, [], pool)
        for (start, end), pool in zip(pairwise([0, *ends]), stars, strict=True)
    ]
    for model in response.models:
        items, values = unpack_ints("items", model.items), unpack_floats("scores", model.scores)
        best_ends = np.cumsum(unpack_ints("counts", model.counts)).tolist()
        if len(best_ends) != len(queries) or not best_ends[-1] == len(items) == len(values):
            raise ValueError("wrong number of best items")
        for ranking, (start, end) in zip(rankings, pairwise([0, *best_ends]), strict=True):
            ranking.best[model.model] = items[start:end], values[start:end]
    _add_abstaining(rankings, response)
    return rankings


def _unpack_tops(users: int, response: pb.RankItemsResponse) -> list[BackendRanking]:
    """Returns each user's best items.

    Raises:
        ValueError: An array has the wrong length.
    """
    top = response.top
    items, scores = unpack_ints("items", top.items), unpack_floats("scores", top.scores)
    proposers = unpack_ints("proposers", top.proposers)
    biases = unpack_floats("user_biases", top.user_biases).tolist()
    ends = np.cumsum(unpack_ints("counts", top.counts)).tolist()
    if not len(ends) == len(biases) == users or any(
        len(values) != ends[-1] for values in (items, scores, proposers)
    ):
        raise ValueError("wrong number of top items")
    rankings = [
        BackendRanking(
            scores[:0],
            {},
            [],
            pool,
            TopItems(items[start:end], scores[start:end], proposers[start:end], bias),
        )
        for (start, end), bias, pool in zip(
            pairwise([0, *ends]), biases, _unpack_best(users, response), strict=True
        )
    ]
    _add_abstaining(rankings, response)
    return rankings


def _add_abstaining(rankings: Sequence[BackendRanking], response: pb.RankItemsResponse) -> None:
    """Adds the models that cannot score a user to the user's ranking."""
    for model in response.models:
        if model.abstains:
            for user in unpack_ints("abstains", model.abstains).tolist():
                rankings[user].abstaining.append(model.model)


def _unpack_best(users: int, response: pb.RankItemsResponse) -> Sequence[BestItems | None]:
    """Returns each user's best items as scored by the plan's `stars_models`; None without any.

    Raises:
        ValueError: An array has the wrong length.
    """
    if not response.HasField("best"):
        return [None] * users
    best = response.best
    items = unpack_ints("items", best.items)
    scores = {model.model: unpack_floats("scores", model.scores) for model in best.models}
    ends = np.cumsum(unpack_ints("counts", best.counts)).tolist()
    if len(ends) != users or any(len(a) != ends[-1] for a in (items, *scores.values())):
        raise ValueError("wrong number of best items with stars")
    return [
        BestItems(items[start:end], {name: values[start:end] for name, values in scores.items()})
        for start, end in pairwise([0, *ends])
    ]


def _ends(queries: Sequence[Query], total: int) -> list[int]:
    """Returns the end of each user's values in an array for the whole batch.

    A query without candidates covers the whole catalogue. The size of the catalogue follows from
    the number of values that remain after the other queries.
    """
    counts = np.array([0 if q.candidates is None else len(q.candidates) for q in queries])
    whole = np.array([query.candidates is None for query in queries])
    if whole.any():
        counts[whole] = (total - int(counts.sum())) // int(whole.sum())
    ends: list[int] = np.cumsum(counts).tolist()
    return ends
