"""Serialises the items of an answer directly, in a third of the time that messages would take."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Float64
from marquee_services.gateway.caching.message_bytes import (
    double_tag,
    float_tag,
    length_delimited_tag,
    varint,
    varint_tag,
)

_ITEMS = length_delimited_tag(pb.RecommendResponse, "items")
_ID = length_delimited_tag(pb.RecommendedItem, "item_id")
_RANK = varint_tag(pb.RecommendedItem, "rank")
_SCORE = double_tag(pb.RecommendedItem, "score")
_STARS = float_tag(pb.RecommendedItem, "predicted_stars")
_PROPOSED_BY = length_delimited_tag(pb.RecommendedItem, "proposed_by")
_SCORE_ALONE = struct.Struct(f"<{len(_SCORE)}sd")
_SCORE_AND_STARS = struct.Struct(f"<{len(_SCORE)}sd{len(_STARS)}sf")


def serialized_items(
    ids: Sequence[bytes],
    scores: Float64,
    stars: NDArray[np.floating] | None,
    proposers: Sequence[Sequence[str]],
    first_rank: int,
    details: Sequence[bytes] | None = None,
) -> bytes:
    """Returns the serialised field `items` of a response.

    Args:
        ids: The items' ids, the best first, encoded as UTF-8 (n).
        scores: The ranking scores (float64, n).
        stars: The predicted ratings in stars (float, n); None if the release predicts none.
        proposers: The names of the models that proposed each item (n).
        first_rank: The rank of the first item, starting at 1.
        details: The serialised fields `metadata` and `reasons` of each item (n); None to leave them
            out.
    """
    if stars is None:
        numbers = [_SCORE_ALONE.pack(_SCORE, score) for score in scores.tolist()]
    else:
        numbers = [
            _SCORE_AND_STARS.pack(_SCORE, score, _STARS, predicted)
            for score, predicted in zip(scores.tolist(), stars.tolist(), strict=True)
        ]
    parts: list[bytes] = []
    more = [b""] * len(ids) if details is None else details
    for rank, (item_id, own, names, detail) in enumerate(
        zip(ids, numbers, proposers, more, strict=True), first_rank
    ):
        head = _ID, varint(len(item_id)), item_id, _RANK, varint(rank)
        item = b"".join((*head, own, _proposed_by(tuple(names)), detail))
        parts += _ITEMS, varint(len(item)), item
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _proposed_by(names: tuple[str, ...]) -> bytes:
    encoded = [name.encode() for name in names]
    return b"".join(part for name in encoded for part in (_PROPOSED_BY, varint(len(name)), name))
