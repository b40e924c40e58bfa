"""Converts response messages to the dataclasses of `_answers`, `_state` and `_types`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from marquee._answers import (
    BatchAnswer,
    FoundItems,
    PredictedRating,
    PredictedRatings,
    Recommendation,
    Recommendations,
    SimilarItem,
    SimilarItems,
)
from marquee._errors import Internal, MarqueeError
from marquee._options import Subject
from marquee._rpc_errors import from_code
from marquee._state import (
    ArmStatus,
    BackendStatus,
    ExperimentStatus,
    FeedbackStatus,
    GateCheck,
    GateVerdict,
    ModelStatus,
    ReleaseEvaluation,
    ReleaseStatus,
    Status,
)
from marquee._types import (
    AnswerSource,
    Decomposition,
    DegradedReason,
    Item,
    ModelShare,
    ModelWeight,
    RatedItem,
    Reason,
    SimilarUsers,
    SubjectKind,
)
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

_SUBJECT_KINDS: Mapping[int, SubjectKind] = {
    number: SubjectKind(name.removeprefix("SUBJECT_KIND_"))
    for name, number in types_pb2.SubjectKind.items()
}
_DECOMPOSITIONS: Mapping[int, Decomposition] = {
    number: Decomposition(name.removeprefix("DECOMPOSITION_"))
    for name, number in pb.Reason.Decomposition.items()
}
_DEGRADED_REASONS: Mapping[int, DegradedReason] = {
    number: DegradedReason(name.removeprefix("DEGRADED_REASON_"))
    for name, number in types_pb2.DegradedReason.items()
}


def recommendations(
    response: pb.RecommendResponse | pb.BatchRecommendResponse.Recommendations,
) -> Recommendations:
    """Converts a page of recommendations, or the recommendations for one subject of a batch."""
    token = response.next_page_token if isinstance(response, pb.RecommendResponse) else ""
    return Recommendations(
        items=tuple([_recommendation(entry) for entry in response.items]),
        recommendation_id=response.recommendation_id,
        subject_kind=_subject_kind(response.subject_kind),
        source=_source(response.source),
        unknown_item_ids=tuple(response.unknown_item_ids),
        next_page_token=token,
        raw=response,
    )


def batch_answer(
    message: pb.BatchRecommendResponse.SubjectAnswer, subjects: Sequence[Subject]
) -> BatchAnswer:
    """Converts the answer for one of the subjects of a batch."""
    answer, error = None, None
    match message.WhichOneof("result"):
        case "recommendations":
            answer = recommendations(message.recommendations)
        case "error":
            error = _subject_error(message.error)
        case _:
            # A kind of result that is newer than this client.
            error = Internal("the server sent neither recommendations nor an error")
    index = message.subject_index
    return BatchAnswer(index, subjects[index], answer, error, raw=message)


def predicted_ratings(response: pb.PredictRatingsResponse) -> PredictedRatings:
    """Converts predicted ratings."""
    return PredictedRatings(
        items=tuple(
            PredictedRating(entry.item_id, entry.stars if entry.HasField("stars") else None)
            for entry in response.predictions
        ),
        subject_kind=_subject_kind(response.subject_kind),
        source=_source(response.source),
        unknown_item_ids=tuple(response.unknown_item_ids),
        raw=response,
    )


def similar_items(response: pb.SimilarItemsResponse) -> SimilarItems:
    """Converts similar items."""
    return SimilarItems(
        items=tuple(
            SimilarItem(
                item_id=entry.item_id,
                rank=entry.rank,
                similarity=entry.similarity,
                proposed_by=tuple(entry.proposed_by),
                metadata=item(entry.metadata) if entry.HasField("metadata") else None,
                raw=entry,
            )
            for entry in response.items
        ),
        source=_source(response.source),
        unknown_item_ids=tuple(response.unknown_item_ids),
        raw=response,
    )


def found_items(response: pb.SearchItemsResponse) -> FoundItems:
    """Converts a page of search results."""
    return FoundItems(
        items=tuple(item(entry) for entry in response.items),
        release_id=response.release_id,
        next_page_token=response.next_page_token,
        raw=response,
    )


def item(message: types_pb2.Item) -> Item:
    """Converts an item."""
    return Item(
        item_id=message.item_id,
        title=message.title,
        year=message.year or None,
        genres=tuple(message.genres),
        rating_count=message.rating_count,
        mean_stars=message.mean_stars if message.HasField("mean_stars") else None,
        raw=message,
        attributes=dict(sorted(message.attributes.items())),
    )


def status(response: pb.GetStatusResponse) -> Status:
    """Converts the state of the gateway."""
    return Status(
        release=_release(response.release) if response.HasField("release") else None,
        loaded_release_ids=tuple(response.loaded_release_ids),
        backends=tuple(
            BackendStatus(
                backend=entry.backend,
                target=entry.target,
                healthy=entry.healthy,
                loaded_release_ids=tuple(entry.loaded_release_ids),
                last_error=entry.last_error,
                last_error_at=entry.last_error_at,
            )
            for entry in response.backends
        ),
        server_version=response.server_version,
        pending_release_reason=response.pending_release_reason,
        store_error=response.store_error,
        feedback=_feedback(response.feedback) if response.HasField("feedback") else None,
        experiment=(_experiment(response.experiment) if response.HasField("experiment") else None),
        raw=response,
    )


def _experiment(message: pb.ExperimentStatus) -> ExperimentStatus:
    return ExperimentStatus(
        experiment=message.experiment,
        started_at=message.started_at,
        arms=tuple(
            ArmStatus(
                arm=arm.arm,
                release_id=arm.release_id,
                percent=arm.percent,
                ranking_weights=dict(arm.ranking_weights),
                unavailable_reason=arm.unavailable_reason,
            )
            for arm in message.arms
        ),
        pending_list_count=message.pending_list_count,
        uncounted_list_count=message.uncounted_list_count,
        last_error=message.last_error,
    )


def _feedback(message: pb.FeedbackStatus) -> FeedbackStatus:
    return FeedbackStatus(
        healthy=message.healthy,
        log_position=message.log_position,
        lag_seconds=message.lag_seconds if message.HasField("lag_seconds") else None,
        user_count=message.user_count,
        memory_bytes=message.memory_bytes,
        evicted_user_count=message.evicted_user_count,
        last_error=message.last_error,
        last_error_at=message.last_error_at,
    )


def _recommendation(message: pb.RecommendedItem) -> Recommendation:
    return Recommendation(
        item_id=message.item_id,
        rank=message.rank,
        score=message.score,
        predicted_stars=message.predicted_stars if message.HasField("predicted_stars") else None,
        proposed_by=tuple(message.proposed_by),
        metadata=item(message.metadata) if message.HasField("metadata") else None,
        reasons=_reasons(message.reasons) if message.reasons else (),
        raw=message,
    )


def _reasons(messages: Iterable[pb.Reason]) -> tuple[Reason, ...]:
    """Converts reasons, and skips kinds that are newer than this client."""
    return tuple(reason for entry in messages if (reason := _reason(entry)) is not None)


def _reason(message: pb.Reason) -> Reason | None:
    match message.WhichOneof("evidence"):
        case "model_share":
            share = message.model_share
            return ModelShare(
                share.model,
                share.output,
                share.contribution,
                _DECOMPOSITIONS.get(share.decomposition, Decomposition.UNSPECIFIED),
                share.explained,
            )
        case "rated_item":
            rated = message.rated_item
            return RatedItem(
                item_id=rated.item_id,
                title=rated.title,
                stars=rated.stars,
                similarity=rated.similarity,
                contribution=rated.contribution,
                model=rated.model,
                score_contribution=rated.score_contribution,
            )
        case "similar_users":
            users = message.similar_users
            return SimilarUsers(
                users.count,
                users.mean_stars,
                users.contribution,
                users.model,
                users.score_contribution,
            )
        case _:
            return None


def _source(message: types_pb2.AnswerSource) -> AnswerSource:
    return AnswerSource(
        release_id=message.release_id,
        models=tuple([_weight(entry) for entry in message.models]),
        degraded=message.degraded,
        degraded_reasons=tuple(
            _DEGRADED_REASONS.get(number, DegradedReason.UNSPECIFIED)
            for number in message.degraded_reasons
        ),
        abstaining_models=tuple(message.abstaining_models),
        server_time_us=message.server_time_us,
        raw=message,
        experiment=message.experiment,
        arm=message.arm,
    )


def _weight(message: types_pb2.ModelWeight) -> ModelWeight:
    return _shared_weight(
        message.model, message.version, message.ranking_weight, message.rating_weight
    )


@lru_cache(maxsize=1024)
def _shared_weight(model: str, version: str, ranking: float, rating: float) -> ModelWeight:
    """Returns a shared object for equal weights, because all answers of a release repeat them."""
    return ModelWeight(model, version, ranking, rating)


def _release(message: pb.ReleaseStatus) -> ReleaseStatus:
    return ReleaseStatus(
        release_id=message.release_id,
        published_at=message.published_at,
        data_source=message.data_source,
        data_fingerprint=message.data_fingerprint,
        user_count=message.user_count,
        item_count=message.item_count,
        rating_count=message.rating_count,
        models=tuple(
            ModelStatus(_weight(entry.weight), entry.backend, dict(entry.metrics))
            for entry in message.models
        ),
        ensemble_metrics=dict(message.ensemble_metrics),
        evaluation=_evaluation(message.evaluation) if message.HasField("evaluation") else None,
        refitted=message.refitted,
        implicit_feedback=message.implicit_feedback,
        genres=tuple(message.genres),
        gate=_verdict(message.gate) if message.HasField("gate") else None,
    )


def _verdict(message: pb.GateVerdict) -> GateVerdict:
    checks = (GateCheck(c.name, c.decision, c.text, dict(c.figures)) for c in message.checks)
    return GateVerdict(
        message.decision, message.compared_release_id, message.judged_at, tuple(checks)
    )


def _evaluation(message: pb.ReleaseStatus.Evaluation) -> ReleaseEvaluation:
    return ReleaseEvaluation(
        split=message.split,
        seed=message.seed,
        training_ratings=message.training_ratings,
        test_ratings=message.test_ratings,
        training_fingerprint=message.training_fingerprint,
    )


def _subject_kind(number: int) -> SubjectKind:
    return _SUBJECT_KINDS.get(number, SubjectKind.UNSPECIFIED)


def _subject_error(message: pb.BatchRecommendResponse.SubjectError) -> MarqueeError:
    return from_code(message.code, message.message, message.reason)
