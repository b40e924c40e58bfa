"""What callers give: subjects, filters, options, certificates and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypedDict

PAGE_SIZE = 20
"""How many items an answer holds when the caller does not say; the API's own default."""

Token: TypeAlias = str | Callable[[], str]
"""A bearer token, or what answers one; asked before each call, so it should keep the token."""


@dataclass(frozen=True, slots=True)
class TLS:
    """How to secure a connection. Each PEM is given as the path of its file, or as its bytes.

    Attributes:
        ca: The certificate authorities to trust; None for the system's.
        cert: The client's certificate chain, for mutual TLS.
        key: Its private key.
        server_name: The name to expect in the server's certificate, if not the target's.

    Raises:
        ValueError: One of `cert` and `key` is missing.
    """

    ca: str | Path | bytes | None = None
    cert: str | Path | bytes | None = None
    key: str | Path | bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate")


@dataclass(frozen=True, slots=True)
class Subject:
    """Who an answer is for; give at least one of the three.

    Attributes:
        user_id: A user's id; an unknown one gets the release's cold-start answer.
        ratings: Ratings in stars by item id that the release does not know of: a visitor's, or
            fresh ones on top of a known user's; the latest last. At most 1,000.
        liked_item_ids: Items that the subject likes, without a rating, later than all ratings; the
            latest last. At most 100.
    """

    user_id: str = ""
    ratings: Mapping[str, float] = field(default_factory=dict)
    liked_item_ids: Sequence[str] = ()


class ItemFilter(TypedDict, total=False):
    """Which items qualify; a key that is left out does not filter.

    Filters apply before the answer is cut to its size.

    Attributes:
        genres_any: The item has at least one of these genres.
        genres_all: The item has all of these genres.
        genres_none: The item has none of these genres.
        year_min: The item was made in this year or later.
        year_max: The item was made in this year or before.
        allowed_item_ids: Only these items; at least one, at most 10,000.
        excluded_item_ids: None of these items; at most 10,000.
    """

    genres_any: Iterable[str]
    genres_all: Iterable[str]
    genres_none: Iterable[str]
    year_min: int | None
    year_max: int | None
    allowed_item_ids: Iterable[str] | None
    excluded_item_ids: Iterable[str]


class RecommendOptions(ItemFilter, total=False):
    """Options of a recommendation, on top of those of `ItemFilter`.

    Attributes:
        include_seen: Whether to recommend items that the subject has rated. Default: False.
        min_predicted_stars: Only items with at least this predicted rating. Default: None.
        diversity: 0 ranks by score alone; up to 1, the more, the less similar the items are to
            those above them (maximal marginal relevance). Default: 0.
        release_id: Answer with this release instead of the one in service. Default: "".
        model: Answer with this model alone instead of the ensemble. Default: "".
        include_metadata: Whether to tell titles, years and genres. Default: False.
        include_reasons: Whether to tell the reasons for each item; at most 100 items a page then.
            Default: False.
    """

    include_seen: bool
    min_predicted_stars: float | None
    diversity: float
    release_id: str
    model: str
    include_metadata: bool
    include_reasons: bool
