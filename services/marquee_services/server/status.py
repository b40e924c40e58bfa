"""Encodes errors as google.rpc.Status, the details that gRPC sends in the trailing metadata."""

from __future__ import annotations

from typing import TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from marquee.v1 import errors_pb2
from marquee_services.errors import InvalidFields, RateLimited, Retryable, ServiceError
from marquee_services.server.telemetry.call_scope import REQUEST_ID_KEY

DOMAIN = "marquee.v1"
DETAILS_KEY = "grpc-status-details-bin"

# The encoded details of refusals, by message and delay.
_refusals: dict[tuple[str, float], bytes] = {}
_MAX_REFUSALS = 256
# The bytes before and after the id in an encoded RequestInfo, by the id's length (at most 128).
_request_infos: dict[int, tuple[bytes, bytes]] = {}

_Detail: TypeAlias = (
    error_details_pb2.ErrorInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.RequestInfo
    | error_details_pb2.RetryInfo
)


def reason_name(error: ServiceError) -> str:
    """Returns the name of an error's `ErrorReason`, without the prefix."""
    return errors_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def status_details(error: ServiceError, request_id: str = "") -> bytes:
    """Returns the google.rpc.Status of an error, serialised for the trailing metadata.

    Args:
        error: The error.
        request_id: The request id of the call, by which it is found in the logs; "" for none.
    """
    if isinstance(error, Retryable):
        # Refusals must be cheap, and there are few different ones.
        key = str(error), error.retry_after_s
        if key not in _refusals:
            if len(_refusals) >= _MAX_REFUSALS:
                _refusals.clear()
            _refusals[key] = _encode(error)
        encoded = _refusals[key]
    else:
        encoded = _encode(error)
    if not request_id:
        return encoded
    # Concatenated serialised messages are parsed as one message with the details of both.
    return encoded + _request_info(request_id)


def trailers_of(details: bytes, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Returns the trailing metadata of a failed call.

    Args:
        details: The serialised google.rpc.Status.
        request_id: The request id of the call.
    """
    return (DETAILS_KEY, details), (REQUEST_ID_KEY, request_id)


def error_trailers(error: ServiceError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Returns the trailing metadata of a call that fails with an error; see `status_details`."""
    return trailers_of(status_details(error, request_id), request_id)


def _request_info(request_id: str) -> bytes:
    """Returns a serialised google.rpc.Status with a RequestInfo.

    Messages with ids of the same length differ only in the id, so one is encoded for each length.
    """
    size = len(request_id)
    found = _request_infos.get(size)
    if found is None:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RequestInfo(request_id="?" * size))
        encoded = status_pb2.Status(details=[detail]).SerializeToString()
        before, _, after = encoded.partition(b"?" * size)
        found = _request_infos[size] = before, after
    return found[0] + request_id.encode() + found[1]


def _encode(error: ServiceError) -> bytes:
    details: list[_Detail] = [
        error_details_pb2.ErrorInfo(
            reason=reason_name(error), domain=DOMAIN, metadata=error.metadata
        )
    ]
    if isinstance(error, InvalidFields):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.reason
                    )
                    for violation in error.violations
                ]
            )
        )
    if isinstance(error, Retryable | RateLimited):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return pack_status(error.code, str(error), *details)


def internal_details(message: str, request_id: str) -> bytes:
    """Returns the serialised google.rpc.Status of an unexpected error.

    Args:
        message: The message for the caller.
        request_id: The request id with which the server logged the error.
    """
    info = error_details_pb2.ErrorInfo(
        reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id}
    )
    request = error_details_pb2.RequestInfo(request_id=request_id)
    return pack_status(grpc.StatusCode.INTERNAL, message, info, request)


def pack_status(
    code: grpc.StatusCode,
    message: str,
    *details: _Detail,
) -> bytes:
    """Serialises a google.rpc.Status with details."""
    packed = []
    for detail in details:
        anything = any_pb2.Any()
        anything.Pack(detail)
        packed.append(anything)
    number: int = code.value[0]
    serialised: bytes = status_pb2.Status(
        code=number, message=message, details=packed
    ).SerializeToString()
    return serialised
