"""The state of a gateway, as returned by `status()`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marquee._types import ModelWeight

if TYPE_CHECKING:
    from marquee.v1 import recommender_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model of a release.

    Attributes:
        weight: The model's name, version and weights in the full ensemble.
        backend: The service that scores with the model: `cf`, `inference` or `gateway`.
        metrics: The model's own metrics on the test ratings by name, for example `test_mse`.
    """

    weight: ModelWeight
    backend: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReleaseEvaluation:
    """How a release's metrics were measured: on ratings that the measured models had not seen.

    Attributes:
        split: How the test ratings were chosen, for example `last of each user, 80/20`.
        seed: The seed of the split and of the models.
        training_ratings: The number of ratings that the measured models were fitted on; 0 if the
            release does not record it.
        test_ratings: The number of ratings that the models were measured on.
        training_fingerprint: The SHA-256 of the ratings that the measured models were fitted on;
            empty if the release does not record it.
    """

    split: str
    seed: int
    training_ratings: int
    test_ratings: int
    training_fingerprint: str


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One check of the promotion gate.

    Attributes:
        name: The check's name, for example `ranking` or `spread of stars`.
        decision: The check's decision: `promote`, `ask` or `refuse`.
        text: A description of the findings.
        figures: The figures that the decision is based on, by name.
    """

    name: str
    decision: str
    text: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """A verdict of the promotion gate, which compares a release with the one in production.

    Attributes:
        decision: What the gate decided: `promote`, `ask` (a person must approve) or `refuse`.
        compared_release_id: The release in production at the time; empty if there was none.
        judged_at: The time of the verdict, as an RFC 3339 timestamp.
        checks: All checks.
    """

    decision: str
    compared_release_id: str
    judged_at: str
    checks: tuple[GateCheck, ...]


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """A release in service.

    Attributes:
        release_id: The release's id.
        published_at: When the release was published, as an RFC 3339 timestamp.
        data_source: Where the ratings came from, for example `sample(seed=0)`.
        data_fingerprint: The SHA-256 of the ratings that the release serves.
        user_count: The number of users in the release.
        item_count: The number of items in the release.
        rating_count: The number of ratings that the release serves: those that its models were
            fitted on.
        models: The models of the release.
        ensemble_metrics: The ensemble's metrics on the test ratings by name, for example `ndcg@10`.
        evaluation: How the metrics were measured; None if an older server does not report it.
        refitted: Whether the models were refitted on all ratings, including the test ratings, after
            they had been evaluated. If not, the release serves the models that were evaluated.
        implicit_feedback: Whether the release was trained on implicit feedback, such as plays or
            purchases. It then ranks items, but does not predict stars.
        genres: The genres of the catalogue, sorted; filters by other genres match no item. Empty
            if there are none, or if an older server does not report them.
        gate: The latest verdict of the promotion gate on the release; None if there is none.
    """

    release_id: str
    published_at: str
    data_source: str
    data_fingerprint: str
    user_count: int
    item_count: int
    rating_count: int
    models: tuple[ModelStatus, ...]
    ensemble_metrics: Mapping[str, float]
    evaluation: ReleaseEvaluation | None = None
    refitted: bool = False
    implicit_feedback: bool = False
    genres: tuple[str, ...] = ()
    gate: GateVerdict | None = None


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A backend, as the gateway sees it. A backend may have several replicas.

    Attributes:
        backend: The backend's name: `cf` or `inference`.
        target: The gRPC target that the gateway resolves to the addresses of the replicas.
        healthy: Whether at least one replica answered the gateway's last health probe.
        loaded_release_ids: The releases that every healthy replica has loaded, most recently
            promoted first.
        last_error: The most recent error of a replica or of the address lookup; empty if there has
            been none since the gateway started.
        last_error_at: When that error occurred, as an RFC 3339 timestamp; empty if there was none.
    """

    backend: str
    target: str
    healthy: bool
    loaded_release_ids: tuple[str, ...]
    last_error: str
    last_error_at: str


@dataclass(frozen=True, slots=True)
class FeedbackStatus:
    """The progress of a gateway in reading the feedback log.

    Attributes:
        healthy: Whether the most recent read succeeded.
        log_position: The position up to which answers take feedback into account.
        lag_seconds: Seconds since the gateway last reached the end of the log; None if it never
            has.
        user_count: The number of users whose feedback is in memory.
        memory_bytes: The approximate memory of that feedback in bytes.
        evicted_user_count: The number of users whose feedback was evicted to limit the memory.
        last_error: The most recent error of a read; empty if there was none.
        last_error_at: When that error occurred, as an RFC 3339 timestamp; empty if there was none.
    """

    healthy: bool
    log_position: int
    lag_seconds: float | None
    user_count: int
    memory_bytes: int
    evicted_user_count: int
    last_error: str
    last_error_at: str


@dataclass(frozen=True, slots=True)
class ArmStatus:
    """An arm of an experiment.

    Attributes:
        arm: The arm's name.
        release_id: The release that answers.
        percent: The share of users, in percent.
        ranking_weights: The weights of the ranking models, by name; empty for the release's own
            blend.
        unavailable_reason: Why the arm is unavailable, so that `control` answers its users; empty
            if it is available.
    """

    arm: str
    release_id: str
    percent: float
    ranking_weights: Mapping[str, float]
    unavailable_reason: str


@dataclass(frozen=True, slots=True)
class ExperimentStatus:
    """The running experiment, as seen by a gateway.

    Attributes:
        experiment: The name of the experiment; empty if none is running.
        started_at: When it was started, as an RFC 3339 timestamp.
        arms: Its arms.
        pending_list_count: The number of lists that the gateway has not written to the feedback log
            yet.
        uncounted_list_count: The number of lists that the gateway could not count.
        last_error: Why the experiments in the store cannot be read; empty if they can.
    """

    experiment: str
    started_at: str
    arms: tuple[ArmStatus, ...]
    pending_list_count: int
    uncounted_list_count: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the gateway.

    Attributes:
        release: The release in service; None before the first release is loaded.
        loaded_release_ids: The ids of all loaded releases, which requests may name; most recently
            promoted first.
        backends: The backends that the gateway calls: those whose models are part of a loaded
            release, or all backends before the first release is loaded.
        server_version: The version of the gateway.
        pending_release_reason: Why the promoted release is not in service yet; empty if it is.
        store_error: Why the gateway could not read which release is promoted; empty if it could.
        feedback: The feedback log; None if the gateway has none.
        raw: The protobuf message that this was made from.
        experiment: The running experiment; None if there is none.
    """

    release: ReleaseStatus | None
    loaded_release_ids: tuple[str, ...]
    backends: tuple[BackendStatus, ...]
    server_version: str
    pending_release_reason: str
    store_error: str
    feedback: FeedbackStatus | None
    raw: pb.GetStatusResponse = field(repr=False, compare=False)
    experiment: ExperimentStatus | None = None
