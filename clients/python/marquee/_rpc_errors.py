"""Converts gRPC errors to the client's exceptions. This is the only module that does so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from marquee._errors import MarqueeError, Violation, error_class

ERROR_DOMAIN = "marquee.v1"
# gRPC's error message if it cannot connect to any address of a target.
_NO_CONNECTION = re.compile(
    r"(?:connections to all backends failing|failed to connect to all ad).*"
    r"last error: (?P<cause>.*)",
    re.S,
)
DETAILS_KEY = "grpc-status-details-bin"


def from_rpc_error(error: grpc.RpcError, target: str = "") -> MarqueeError:
    """Returns the exception for a failed call, to be raised with `raise … from error`.

    The details come from the google.rpc.Status in the trailing metadata: reason and metadata from
    the ErrorInfo of Marquee's domain, violations from the BadRequest, `retry_after` from the
    RetryInfo and the request id from the RequestInfo. If no server could be reached, the message
    names the target.

    Args:
        error: The error of the call.
        target: The target of the client, for the message; may be empty.
    """
    code = error.code()
    reason, metadata, violations, request_id, retry_after = "", {}, [], "", None
    for detail in _status(error).details:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        request = error_details_pb2.RequestInfo()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(request):
            request_id = request.request_id
        elif detail.Unpack(bad_request):
            violations += [Violation(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    message = error.details() or code.name
    if code is grpc.StatusCode.UNAVAILABLE and target and (cause := _NO_CONNECTION.search(message)):
        message = f"cannot connect to a gateway at {target}: {cause['cause'].rpartition(': ')[2]}"
    return error_class(code.name)(
        message,
        code=code.name,
        reason=reason,
        metadata=metadata,
        violations=violations,
        retry_after=retry_after,
        request_id=request_id,
    )


def from_code(code: int, message: str, reason: str) -> MarqueeError:
    """Returns the exception for one subject of a batch.

    Args:
        code: The google.rpc.Code of the error.
        message: The error message.
        reason: The name of the ErrorReason without its prefix.
    """
    name = code_pb2.Code.Name(code) if code in code_pb2.Code.values() else "UNKNOWN"
    return error_class(name)(message, code=name, reason=reason)


def _status(error: grpc.RpcError) -> status_pb2.Status:
    """Returns the details sent with an error; empty if there are none or they are damaged."""
    # Contrary to their type stubs, the blocking and the asyncio API both return pairs.
    trailers: Iterable[tuple[str, str | bytes]] = cast(Any, error.trailing_metadata()) or ()
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break  # not from a Marquee server; code and message are still useful
    return status_pb2.Status()
