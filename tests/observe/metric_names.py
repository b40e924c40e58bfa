"""The metrics that each server must expose from its start, before any call."""

from __future__ import annotations

from collections.abc import Mapping

from marquee_core.service_names import CF, GATEWAY, INFERENCE, STANDALONE

_CALLS = {
    "marquee_call_seconds_bucket",
    "marquee_calls_total",
    "marquee_call_errors_total",
    "marquee_calls_in_progress",
    "marquee_calls_limit",
    "marquee_calls_waiting_for_request",
    "marquee_connections_ended_total",
    "rpc_server_call_duration_seconds_bucket",
}
_RELEASES = {
    "marquee_release_wanted",
    "marquee_release_loaded",
    "marquee_release_in_service",
    "marquee_releases_refused_total",
    "marquee_release_copies_damaged_total",
    "marquee_store_errors_total",
    "marquee_store_last_poll_timestamp_seconds",
}
_PROCESS = {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "marquee_build_info",
}
_QUEUES = {
    "marquee_queue_wait_seconds_bucket",
    "marquee_queue_users",
    "marquee_queue_limit_users",
    "marquee_batch_users_bucket",
}
_BACKENDS = {
    "marquee_backend_healthy",
    "marquee_backend_replicas",
    "marquee_replica_healthy",
    "marquee_replica_circuit_open",
    "marquee_hedged_calls_total",
}
_ANSWERS = {
    "marquee_release_published_timestamp_seconds",
    "marquee_answers_total",
    "marquee_degraded_answers_total",
    "marquee_subjects_total",
    "marquee_empty_answers_total",
    "marquee_cache_bytes",
    "marquee_cache_limit_bytes",
    "marquee_cache_entries",
    "marquee_cache_evictions_total",
}
_EVERY = _CALLS | _RELEASES | _PROCESS | _QUEUES

AT_START: Mapping[str, frozenset[str]] = {
    CF: frozenset(_EVERY),
    INFERENCE: frozenset(_EVERY),
    GATEWAY: frozenset(_EVERY | _BACKENDS | _ANSWERS),
    STANDALONE: frozenset(_EVERY | _BACKENDS | _ANSWERS),
}
"""Names of samples by server, once a release is in service and before the first call."""

_STARS = {
    "marquee_predicted_stars_bucket",
    "marquee_recommended_items_total",
}
_MODELS = {"marquee_model_seconds_bucket"}

AFTER_AN_ANSWER: Mapping[str, frozenset[str]] = {
    CF: frozenset(_MODELS),
    INFERENCE: frozenset(_MODELS),
    GATEWAY: frozenset({"marquee_backend_call_seconds_bucket", *_STARS}),
    STANDALONE: frozenset(_STARS | _MODELS),
}
"""Names of the additional samples by server, after an answer that had to be computed."""

EVENTUALLY = frozenset(
    {
        "marquee_certificate_expiry_timestamp_seconds",
        "marquee_feedback_events_total",
        "marquee_feedback_evicted_users",
        "marquee_feedback_lag_seconds",
        "marquee_feedback_memory_bytes",
        "marquee_feedback_users",
        "marquee_release_held_back",
        "marquee_release_refused",
        "process_max_fds",
        "process_start_time_seconds",
        "up",
    }
)
"""Names of samples that alerts read and that exist only with TLS, with feedback, after a fault, or
with the process collector."""

OVERLOAD_PROXY = frozenset(
    {"haproxy_backend_http_requests_total", "haproxy_backend_requests_denied_total"}
)
"""Names of samples that alerts and dashboards read from the overload proxy, if there is one."""
