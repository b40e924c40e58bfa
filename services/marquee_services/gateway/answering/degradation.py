"""Maps failures of backends to the reasons for which an answer is degraded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marquee.v1 import types_pb2
from marquee_core.service_names import CF, INFERENCE
from marquee_services.gateway.backends.failures import BackendFailure, Failure

DEGRADED_REASONS: Mapping[tuple[str, Failure], types_pb2.DegradedReason.ValueType] = {
    (CF, Failure.UNAVAILABLE): types_pb2.DEGRADED_REASON_CF_UNAVAILABLE,
    (CF, Failure.TIMEOUT): types_pb2.DEGRADED_REASON_CF_TIMEOUT,
    (CF, Failure.RELEASE_MISSING): types_pb2.DEGRADED_REASON_CF_RELEASE_MISSING,
    (CF, Failure.OVERLOADED): types_pb2.DEGRADED_REASON_CF_OVERLOADED,
    (INFERENCE, Failure.UNAVAILABLE): types_pb2.DEGRADED_REASON_INFERENCE_UNAVAILABLE,
    (INFERENCE, Failure.TIMEOUT): types_pb2.DEGRADED_REASON_INFERENCE_TIMEOUT,
    (INFERENCE, Failure.RELEASE_MISSING): types_pb2.DEGRADED_REASON_INFERENCE_RELEASE_MISSING,
    (INFERENCE, Failure.OVERLOADED): types_pb2.DEGRADED_REASON_INFERENCE_OVERLOADED,
}
"""The protocol's reason for each backend and failure."""


def degraded_reasons(
    failures: Sequence[BackendFailure],
    without_reasons: bool = False,
    without_models: bool = False,
) -> list[types_pb2.DegradedReason.ValueType]:
    """Returns why an answer is degraded; an answer is degraded if and only if there is a reason.

    Args:
        failures: The failures of backends that did not answer.
        without_reasons: Whether the requested reasons are left out because of overload.
        without_models: Whether models are left out because of overload.

    Returns:
        The reasons without duplicates, those of `failures` first and in their order.
    """
    reasons = [DEGRADED_REASONS[failure] for failure in failures]
    if without_reasons:
        reasons.append(types_pb2.DEGRADED_REASON_REASONS_LEFT_OUT)
    if without_models:
        reasons.append(types_pb2.DEGRADED_REASON_MODELS_LEFT_OUT)
    return list(dict.fromkeys(reasons))
