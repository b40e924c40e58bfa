"""The exceptions that calls raise.

::

    MarqueeError
    ├── InvalidArgument      a field violates a constraint; see `violations`
    ├── NotFound             no such item, model or release
    ├── FailedPrecondition   unusable page token or event key, or the model cannot answer
    ├── Unauthenticated      the token is missing or invalid
    ├── PermissionDenied     the token does not allow this call
    ├── Overloaded           the server rejected the call to shed load
    ├── Unavailable          no server could be reached, or it is temporarily unable to answer
    ├── DeadlineExceeded     the deadline passed before the answer arrived
    ├── Cancelled            the call was cancelled, or its client closed
    ├── Unimplemented        the server does not implement this method
    └── Internal             a bug in the server, or in a proxy in between
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of the request that violates a constraint.

    Attributes:
        field: The path of the field, for example `subject.ratings[3].stars`.
        description: What is wrong with the value.
    """

    field: str
    description: str


class MarqueeError(Exception):
    """The base class of all errors of calls.

    Attributes:
        message: A human-readable description of the error.
        code: The name of the gRPC status code, for example `NOT_FOUND`.
        reason: The name of the `ErrorReason` without its prefix, for example `ITEM_NOT_FOUND`.
            Reasons are stable, so programs can branch on them. `THROTTLED` if the client did not
            send the call; otherwise empty if the error was not created by a Marquee server, but by
            gRPC or a proxy, for example.
        metadata: Details of the error, for example `{"item_id": "318"}`.
        violations: The invalid fields; empty except for `InvalidArgument`.
        retry_after: The number of seconds that the server asks the client to wait before it
            repeats the call, set for `Overloaded`; None if the server did not specify it.
        request_id: The id of the call in the servers' logs; empty if the error was not created by
            a Marquee server.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.reason or self.code}: {self.message}"

    @property
    def grpc_error(self) -> BaseException | None:
        """The `grpc.RpcError` that caused this error.

        None for a subject's error in a batch, and for a call that the client did not send.
        """
        return self.__cause__


class InvalidArgument(MarqueeError):
    """A field of the request violates a constraint; `violations` lists them."""

    default_code = "INVALID_ARGUMENT"


class NotFound(MarqueeError):
    """The item, model or release does not exist."""

    default_code = "NOT_FOUND"


class FailedPrecondition(MarqueeError):
    """The page token or event key is unusable, or the model or release cannot answer."""

    default_code = "FAILED_PRECONDITION"


class Unauthenticated(MarqueeError):
    """The server requires a token, or rejected the one that was sent."""

    default_code = "UNAUTHENTICATED"


class PermissionDenied(MarqueeError):
    """The token does not allow this call."""

    default_code = "PERMISSION_DENIED"


class Overloaded(MarqueeError):
    """The server rejected the call to shed load; repeat it after `retry_after` seconds.

    If `reason` is `THROTTLED`, the client did so, because servers rejected most of its calls.
    """

    default_code = "RESOURCE_EXHAUSTED"


class Unavailable(MarqueeError):
    """No server could be reached, or the gateway is temporarily unable to answer.

    A gateway cannot answer while it has no release, or while a backend that the request depends on
    is unavailable. Except for batches, the client has already retried the call.
    """

    default_code = "UNAVAILABLE"


class DeadlineExceeded(MarqueeError):
    """The deadline passed before the answer arrived."""

    default_code = "DEADLINE_EXCEEDED"


class Cancelled(MarqueeError):
    """The call was cancelled, or its client was closed during the call."""

    default_code = "CANCELLED"


class Unimplemented(MarqueeError):
    """The server does not implement this method: it is older, or not a Marquee gateway."""

    default_code = "UNIMPLEMENTED"


class Internal(MarqueeError):
    """A bug in the server, or in a proxy between client and server."""

    default_code = "INTERNAL"


_BY_CODE: dict[str, type[MarqueeError]] = {
    kind.default_code: kind for kind in MarqueeError.__subclasses__()
}


def error_class(code: str) -> type[MarqueeError]:
    """Returns the class for a gRPC status code; `Internal` for codes without their own class."""
    return _BY_CODE.get(code, Internal)
