"""Types of the clients' arguments: subjects, filters, options, certificates and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypedDict

PAGE_SIZE = 20
"""Default maximum number of items on a page; the same as the API's own default."""

Token: TypeAlias = str | Callable[[], str]
"""A bearer token, or a function that returns one.

The function is called before every call of the client, so it should cache the token.
"""

Metadata: TypeAlias = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]
"""Additional request metadata (headers): lower-case keys with printable ASCII values.

The values of keys that end in `-bin` are bytes.
"""


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates for a TLS connection. Each PEM is either the path of a file or its content.

    Attributes:
        ca: PEM of the certificate authorities to trust; None for those of the system.
        cert: PEM of the client's certificate chain, for mutual TLS; None for server-side TLS only.
        key: PEM of the private key of `cert`.
        server_name: The name that the server's certificate must have; None for the host of the
            target.

    Raises:
        ValueError: Only one of `cert` and `key` is set.
    """

    ca: str | Path | bytes | None = None
    cert: str | Path | bytes | None = None
    key: str | Path | bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key must be given together")


@dataclass(frozen=True, slots=True)
class Subject:
    """Who an answer is for. At least one field must be set.

    Attributes:
        user_id: The user's id; empty for a visitor. If the id is unknown, the answer is based on
            the other fields, or is the cold-start answer.
        ratings: Ratings in stars by item id, oldest first, that are not in the training data: a
            visitor's ratings, or new ratings of a known user. At most 1,000.
        liked_item_ids: Items that the subject likes, without a number of stars, oldest first. They
            count as top ratings that are more recent than `ratings`. At most 100.
    """

    user_id: str = ""
    ratings: Mapping[str, float] = field(default_factory=dict)
    liked_item_ids: Sequence[str] = ()


class ItemFilter(TypedDict, total=False):
    """Restricts the items that may be returned. An item must satisfy every given key.

    Filters are applied before the list is cut to the page size, so a page is full if enough items
    satisfy them.

    Attributes:
        genres_any: Keep items that have at least one of these genres; at most 32.
        genres_all: Keep items that have all of these genres; at most 32.
        genres_none: Keep items that have none of these genres; at most 32.
        year_min: Keep items released in this year or later; items without a year are dropped.
        year_max: Keep items released in this year or earlier; items without a year are dropped.
        allowed_item_ids: Keep only these items; 1 to 10,000. None, the default, keeps all.
        excluded_item_ids: Drop these items; at most 10,000.
    """

    genres_any: Iterable[str]
    genres_all: Iterable[str]
    genres_none: Iterable[str]
    year_min: int | None
    year_max: int | None
    allowed_item_ids: Iterable[str] | None
    excluded_item_ids: Iterable[str]


class RecommendOptions(ItemFilter, total=False):
    """Options of a recommendation, in addition to the filters of `ItemFilter`.

    Attributes:
        include_seen: Whether to recommend items that the subject has already rated. Default: False.
        min_predicted_stars: Recommend only items whose predicted rating is at least this many
            stars. Default: None, no filter.
        diversity: How strongly to diversify the list, from 0 to 1. 0 ranks only by score; higher
            values penalise items that are similar to those ranked above them (maximal marginal
            relevance). Default: 0.
        release_id: Answer from this release. Default: "", the release in service.
        model: Rank and predict only with this model. Default: "", the ensemble.
        include_metadata: Whether to return the title, year and genres of each item. Default: False.
        include_reasons: Whether to return the reasons for each item; limits `page_size` to 100.
            Default: False.
    """

    include_seen: bool
    min_predicted_stars: float | None
    diversity: float
    release_id: str
    model: str
    include_metadata: bool
    include_reasons: bool
