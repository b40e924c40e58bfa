"""The exceptions that calls raise.

::

    MarqueeError
    ├── InvalidArgument      a field violates a constraint; see `violations`
    ├── NotFound             no such item, model or release
    ├── FailedPrecondition   unusable page token or event key, or no answer by the model
    ├── Unauthenticated      the token is missing or invalid
    ├── PermissionDenied     the token does not allow this call
    ├── Overloaded           the server rejected the call to shed load
    ├── Unavailable          no server could be reached, or it cannot answer now
    ├── DeadlineExceeded     the deadline passed before the answer arrived
    ├── Cancelled            the call was cancelled, or its client closed
    ├── Unimplemented        the server does not implement this method
    └── Internal             a defect of the server or of a proxy in between
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
        message: A description of the error for people.
        code: The name of the gRPC status code, for example `NOT_FOUND`.
        reason: The name of the `ErrorReason` without its prefix, for example `ITEM_NOT_FOUND`.
            Reasons are stable, so programs can branch on them. Empty if the error was not created
            by a Marquee server, but for example by gRPC or a proxy.
        metadata: Facts about the error, for example `{"item_id": "318"}`.
        violations: The invalid fields; empty except for `InvalidArgument`.
        retry_after: Seconds after which the server asks to repeat the call; None if it does not
            say. `Overloaded` has it.
        request_id: The id under which the servers' logs have the call; empty if the error was not
            created by a Marquee server.
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
        """The `grpc.RpcError` that caused this error; None for the error of a batch's subject."""
        return self.__cause__


class InvalidArgument(MarqueeError):
    """A field of the request violates a constraint; `violations` lists them."""

    default_code = "INVALID_ARGUMENT"


class NotFound(MarqueeError):
    """The item, model or release does not exist."""

    default_code = "NOT_FOUND"


class FailedPrecondition(MarqueeError):
    """The page token is unusable, the model or release has no such answer, or a key is in use."""

    default_code = "FAILED_PRECONDITION"


class Unauthenticated(MarqueeError):
    """The server requires a token, or rejected the one that was sent."""

    default_code = "UNAUTHENTICATED"


class PermissionDenied(MarqueeError):
    """The token does not allow this call."""

    default_code = "PERMISSION_DENIED"


class Overloaded(MarqueeError):
    """The server rejected the call to shed load; repeat it after `retry_after` seconds."""

    default_code = "RESOURCE_EXHAUSTED"


class Unavailable(MarqueeError):
    """No server could be reached, or the gateway cannot answer now. Only batches are not retried.

    A gateway cannot answer while it has no release, or if a backend that the request depends on is
    unavailable.
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
    """A defect of the server or of a proxy in between."""

    default_code = "INTERNAL"


_BY_CODE: dict[str, type[MarqueeError]] = {
    kind.default_code: kind for kind in MarqueeError.__subclasses__()
}


def error_class(code: str) -> type[MarqueeError]:
    """Returns the class for a gRPC status code; `Internal` for codes without their own class."""
    return _BY_CODE.get(code, Internal)
