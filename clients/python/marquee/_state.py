"""The state of a gateway, as `status()` returns it."""

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
        weight: Its name, version and weights.
        backend: What serves it: `cf`, `inference` or `gateway`.
        metrics: The evaluation's metrics, by name.
    """

    weight: ModelWeight
    backend: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """A release as the gateway sees it.

    Attributes:
        release_id: Its id.
        published_at: When it was published, RFC 3339.
        data_source: Where its ratings came from.
        data_fingerprint: The SHA-256 of the ratings it was trained on.
        user_count: How many users it was trained on.
        item_count: How many items.
        rating_count: How many ratings.
        models: Its models.
        ensemble_metrics: The evaluation's metrics of the ensemble, by name.
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


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A backend as the gateway sees it.

    Attributes:
        backend: Its name: `cf` or `inference`.
        target: Where the gateway looks for it.
        healthy: Whether it answered when last asked.
        loaded_release_ids: The releases it holds, newest first.
        last_error: The last error; empty if there was none since the gateway's start.
        last_error_at: When that was, RFC 3339.
    """

    backend: str
    target: str
    healthy: bool
    loaded_release_ids: tuple[str, ...]
    last_error: str
    last_error_at: str


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the gateway.

    Attributes:
        release: The release in service; None before the first.
        loaded_release_ids: The releases that a request may name, newest first.
        backends: The backends.
        server_version: The gateway's version.
        pending_release_reason: Why the release named `production` is not in service; empty when
            it is.
        raw: The message.
    """

    release: ReleaseStatus | None
    loaded_release_ids: tuple[str, ...]
    backends: tuple[BackendStatus, ...]
    server_version: str
    pending_release_reason: str
    raw: pb.GetStatusResponse = field(repr=False, compare=False)
