"""Maps domain errors to gRPC statuses with google.rpc details."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from marquee.v1 import errors_pb2
from marquee_services import errors

DOMAIN = "marquee.v1"
DETAILS_KEY = "grpc-status-details-bin"

_R = errors_pb2.ErrorReason
_STATUS: dict[
    type[errors.ServiceError], tuple[grpc.StatusCode, errors_pb2.ErrorReason.ValueType]
] = {
    errors.InvalidFields: (grpc.StatusCode.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_FIELD),
    errors.ReleaseNotFound: (grpc.StatusCode.NOT_FOUND, _R.ERROR_REASON_RELEASE_NOT_FOUND),
    errors.ModelNotFound: (grpc.StatusCode.NOT_FOUND, _R.ERROR_REASON_MODEL_NOT_FOUND),
    errors.ItemNotFound: (grpc.StatusCode.NOT_FOUND, _R.ERROR_REASON_ITEM_NOT_FOUND),
    errors.NoRelease: (grpc.StatusCode.UNAVAILABLE, _R.ERROR_REASON_NO_RELEASE),
    errors.Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, _R.ERROR_REASON_OVERLOADED),
    errors.PageTokenMismatch: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _R.ERROR_REASON_PAGE_TOKEN_MISMATCH,
    ),
    errors.PageTokenExpired: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _R.ERROR_REASON_PAGE_TOKEN_EXPIRED,
    ),
    errors.ModelUnavailable: (grpc.StatusCode.UNAVAILABLE, _R.ERROR_REASON_MODEL_UNAVAILABLE),
    errors.BackendUnavailable: (
        grpc.StatusCode.UNAVAILABLE,
        _R.ERROR_REASON_BACKEND_UNAVAILABLE,
    ),
    errors.ModelAbstains: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _R.ERROR_REASON_MODEL_ABSTAINS,
    ),
    errors.DeadlineExceeded: (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        _R.ERROR_REASON_DEADLINE_EXCEEDED,
    ),
}


def reason_name(error: errors.ServiceError) -> str:
    """The stable reason of an error: its ErrorReason without the prefix."""
    name = errors_pb2.ErrorReason.Name(_STATUS[type(error)][1])
    return name.removeprefix("ERROR_REASON_")


def status_code(error: errors.ServiceError) -> grpc.StatusCode:
    """The gRPC status code of an error."""
    return _STATUS[type(error)][0]


def status_details(error: errors.ServiceError) -> bytes:
    """The google.rpc.Status of an error, serialised for the trailing metadata."""
    details: list[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest] = [
        error_details_pb2.ErrorInfo(
            reason=reason_name(error), domain=DOMAIN, metadata=error.metadata
        )
    ]
    if isinstance(error, errors.InvalidFields):
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
    return pack_status(status_code(error), str(error), *details)


def internal_details(message: str, request_id: str) -> bytes:
    """The google.rpc.Status of a defect, which is logged under the request id."""
    info = error_details_pb2.ErrorInfo(
        reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id}
    )
    return pack_status(grpc.StatusCode.INTERNAL, message, info)


def pack_status(
    code: grpc.StatusCode,
    message: str,
    *details: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest,
) -> bytes:
    """A serialised google.rpc.Status."""
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
