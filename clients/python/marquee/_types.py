"""Frozen dataclasses and enums that are shared by the results of several calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from marquee.v1 import types_pb2


class SubjectKind(StrEnum):
    """How the release treats a subject."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not set, or a value that is newer than this client."""
    KNOWN = "KNOWN"
    """A user with ratings in the training data and no additional ratings."""
    KNOWN_WITH_FRESH_RATINGS = "KNOWN_WITH_FRESH_RATINGS"
    """A known user, with ratings from the request or recorded feedback folded in."""
    VISITOR = "VISITOR"
    """No ratings in the training data; folded in from the request and recorded feedback."""
    COLD_START = "COLD_START"
    """No ratings of known items at all; the answer is not personalised."""


class DegradedReason(StrEnum):
    """Why an answer is degraded.

    A backend did not answer, or models or reasons were omitted because of overload.
    """

    UNSPECIFIED = "UNSPECIFIED"
    """Not set, or a value that is newer than this client."""
    CF_UNAVAILABLE = "CF_UNAVAILABLE"
    """The CF service could not be reached, failed, or was known to be unhealthy."""
    INFERENCE_UNAVAILABLE = "INFERENCE_UNAVAILABLE"
    """The same for the inference service."""
    CF_TIMEOUT = "CF_TIMEOUT"
    """The CF service did not respond within its time limit."""
    INFERENCE_TIMEOUT = "INFERENCE_TIMEOUT"
    """The same for the inference service."""
    CF_RELEASE_MISSING = "CF_RELEASE_MISSING"
    """The CF service has not loaded the release."""
    INFERENCE_RELEASE_MISSING = "INFERENCE_RELEASE_MISSING"
    """The same for the inference service."""
    CF_OVERLOADED = "CF_OVERLOADED"
    """The CF service, or the gateway's queue for it, was full."""
    INFERENCE_OVERLOADED = "INFERENCE_OVERLOADED"
    """The same for the inference service."""
    REASONS_LEFT_OUT = "REASONS_LEFT_OUT"
    """The gateway is overloaded and omitted the reasons; the items are those of a full answer."""
    MODELS_LEFT_OUT = "MODELS_LEFT_OUT"
    """The gateway is overloaded and omitted the slowest models; see `source.models`."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the catalogue.

    Attributes:
        item_id: The item's id.
        title: The title, without the year.
        year: The year of release; None if unknown.
        genres: The genres; empty if none are known.
        rating_count: The number of ratings in the release's training data.
        mean_stars: The mean of those ratings in stars; None if there are none, or if the release
            was trained on implicit feedback.
        raw: The protobuf message that this was made from.
        attributes: Additional attributes from the source of the items, by name. Only `get_item`
            returns them; they are empty in other results.
    """

    item_id: str
    title: str
    year: int | None
    genres: tuple[str, ...]
    rating_count: int
    mean_stars: float | None
    raw: types_pb2.Item = field(repr=False, compare=False)
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ModelWeight:
    """A model and its weights in the ensemble.

    Attributes:
        model: The model's name, for example `item_cf`.
        version: The model's version, derived from the content of its files.
        ranking_weight: The weight of the model's output in the ranking score.
        rating_weight: The weight of the model's output in the predicted rating.
    """

    model: str
    version: str
    ranking_weight: float
    rating_weight: float


@dataclass(frozen=True, slots=True)
class AnswerSource:
    """Which release and models an answer comes from.

    Attributes:
        release_id: The id of the release.
        models: The models that contributed, largest absolute ranking weight first.
        degraded: Whether a backend did not answer, or models or reasons were omitted because of
            overload.
        degraded_reasons: Why the answer is degraded; empty if it is not.
        abstaining_models: The names of models that had no scores for this subject, for example
            because they cannot fold in new ratings.
        server_time_us: The time that the gateway spent on the answer, in microseconds.
        raw: The protobuf message that this was made from.
        experiment: The experiment that the answer belongs to; empty for none.
        arm: The experiment's arm that answered; empty for none.
    """

    release_id: str
    models: tuple[ModelWeight, ...]
    degraded: bool
    degraded_reasons: tuple[DegradedReason, ...]
    abstaining_models: tuple[str, ...]
    server_time_us: int
    raw: types_pb2.AnswerSource = field(repr=False, compare=False)
    experiment: str = ""
    arm: str = ""


class Decomposition(StrEnum):
    """How the share of a model can be decomposed.

    Attributes:
        UNSPECIFIED: Not known, because the model's backend returned no evidence, or because the
            server is older than this field.
        RATED_ITEMS: The sum of one contribution per rated item, and a remainder that is not
            explained by rated items.
        SIMILAR_USERS: The sum of the contributions of similar users, and a remainder.
        IMPERSONAL: It does not depend on the subject's ratings of individual items, for example
            popularity.
        OPAQUE: The model cannot be decomposed, for example because it is a neural network.
    """

    UNSPECIFIED = "UNSPECIFIED"
    RATED_ITEMS = "RATED_ITEMS"
    SIMILAR_USERS = "SIMILAR_USERS"
    IMPERSONAL = "IMPERSONAL"
    OPAQUE = "OPAQUE"


@dataclass(frozen=True, slots=True)
class ModelShare:
    """The contribution of one model to a score, which is the sum of all models' contributions.

    Attributes:
        kind: Always `model_share`; the discriminator in JSON.
        model: The model's name, or `intercept` for the constant of the ensemble, whose output is 1.
        output: The model's own output for the item: stars for a rating predictor, an affinity on
            the model's own scale for a ranker.
        contribution: The model's ranking weight times its output.
        decomposition: How the contribution can be decomposed.
        explained: The part of the contribution that is explained by all rated items, or by all
            similar users, listed or not; 0 if the share is not decomposed.
    """

    kind: ClassVar[str] = "model_share"
    model: str
    output: float
    contribution: float
    decomposition: Decomposition = Decomposition.UNSPECIFIED
    explained: float = 0.0


@dataclass(frozen=True, slots=True)
class RatedItem:
    """An item that the subject rated and that raised or lowered the output of one model.

    Attributes:
        kind: Always `rated_item`; the discriminator in JSON.
        item_id: The id of the rated item.
        title: The title of the rated item.
        stars: The subject's rating of it in stars.
        similarity: The similarity of the rated item and the recommended one in the model; 0 if the
            model does not compare items.
        contribution: The contribution to the model's output, in the unit of that output: stars for
            a rating predictor, the model's own scale for a ranker. Negative if it lowers the
            output.
        model: The name of the model; empty if the server is older than this field. It is then
            item-based CF.
        score_contribution: The contribution to the score: the model's ranking weight times
            `contribution`.
    """

    kind: ClassVar[str] = "rated_item"
    item_id: str
    title: str
    stars: float
    similarity: float
    contribution: float
    model: str = ""
    score_contribution: float = 0.0


@dataclass(frozen=True, slots=True)
class SimilarUsers:
    """The subject's neighbours in user-based CF who rated the item.

    Attributes:
        kind: Always `similar_users`; the discriminator in JSON.
        count: The number of neighbours who rated the item.
        mean_stars: The mean of their ratings in stars, weighted by similarity.
        contribution: The contribution to the prediction of user-based CF, in stars. Negative if it
            lowers the prediction.
        model: The name of the model; empty if the server is older than this field.
        score_contribution: The contribution to the score: the model's ranking weight times
            `contribution`.
    """

    kind: ClassVar[str] = "similar_users"
    count: int
    mean_stars: float
    contribution: float
    model: str = ""
    score_contribution: float = 0.0


Reason: TypeAlias = ModelShare | RatedItem | SimilarUsers
