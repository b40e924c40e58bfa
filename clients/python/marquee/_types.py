"""What answers are made of: plain frozen dataclasses, the larger with their message in `raw`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from marquee.v1 import types_pb2


class SubjectKind(StrEnum):
    """How the release sees a subject."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not said, or said in a word that this client is too old to know."""
    KNOWN = "KNOWN"
    """A user of the release."""
    KNOWN_WITH_FRESH_RATINGS = "KNOWN_WITH_FRESH_RATINGS"
    """A user of the release with the request's ratings folded in."""
    VISITOR = "VISITOR"
    """Nobody the release knows, folded in from ratings or liked items."""
    COLD_START = "COLD_START"
    """Nobody the release knows, and no rating of a known item: popular items."""


class DegradedReason(StrEnum):
    """Why less than the release's full ensemble answered."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not said, or said in a word that this client is too old to know."""
    CF_UNAVAILABLE = "CF_UNAVAILABLE"
    INFERENCE_UNAVAILABLE = "INFERENCE_UNAVAILABLE"
    CF_TIMEOUT = "CF_TIMEOUT"
    INFERENCE_TIMEOUT = "INFERENCE_TIMEOUT"
    CF_RELEASE_MISSING = "CF_RELEASE_MISSING"
    INFERENCE_RELEASE_MISSING = "INFERENCE_RELEASE_MISSING"
    CF_OVERLOADED = "CF_OVERLOADED"
    INFERENCE_OVERLOADED = "INFERENCE_OVERLOADED"


@dataclass(frozen=True, slots=True)
class Item:
    """What is known about an item.

    Attributes:
        item_id: Its id.
        title: Its title, without the year.
        year: The year it was made in; None when not known.
        genres: Its genres.
        rating_count: How many ratings it has in the release's training data.
        mean_stars: The mean of those, in stars; None without ratings.
        raw: The message.
    """

    item_id: str
    title: str
    year: int | None
    genres: tuple[str, ...]
    rating_count: int
    mean_stars: float | None
    raw: types_pb2.Item = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelWeight:
    """A model's part in an answer.

    Attributes:
        model: Its name, for example `item_cf`.
        version: Its version.
        ranking_weight: The weight of its output in the ranking score.
        rating_weight: The weight of its output in the predicted rating.
    """

    model: str
    version: str
    ranking_weight: float
    rating_weight: float


@dataclass(frozen=True, slots=True)
class AnswerSource:
    """Which release answered, and with what.

    Attributes:
        release_id: The release.
        models: The models that took part, most weight first.
        degraded: Whether a part of the ensemble is missing.
        degraded_reasons: Why; empty unless degraded.
        abstaining_models: Models of the release that cannot answer such a subject.
        server_time_us: Time that the gateway spent, in microseconds.
        raw: The message.
    """

    release_id: str
    models: tuple[ModelWeight, ...]
    degraded: bool
    degraded_reasons: tuple[DegradedReason, ...]
    abstaining_models: tuple[str, ...]
    server_time_us: int
    raw: types_pb2.AnswerSource = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelShare:
    """A model's share of a score; the contributions of all shares add up to the score.

    Attributes:
        model: The model; `intercept` for the constant of the ensemble, whose output is 1.
        output: Its own output for the item: stars, or its affinity.
        contribution: Weight times output.
    """

    kind: ClassVar[str] = "model_share"
    model: str
    output: float
    contribution: float


@dataclass(frozen=True, slots=True)
class RatedItem:
    """An item the subject rated that pulled this one up or down, by item CF.

    Attributes:
        item_id: Its id.
        title: Its title.
        stars: The subject's rating, in stars.
        similarity: How similar the two items are.
        contribution: What it adds to item CF's prediction, in stars.
    """

    kind: ClassVar[str] = "rated_item"
    item_id: str
    title: str
    stars: float
    similarity: float
    contribution: float


@dataclass(frozen=True, slots=True)
class SimilarUsers:
    """Similar users who rated this item, by user CF.

    Attributes:
        count: How many of the subject's neighbours rated it.
        mean_stars: Their mean rating in stars, weighted by similarity.
        contribution: What they add to user CF's prediction, in stars.
    """

    kind: ClassVar[str] = "similar_users"
    count: int
    mean_stars: float
    contribution: float


Reason: TypeAlias = ModelShare | RatedItem | SimilarUsers
