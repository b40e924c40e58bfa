"""What a call can raise.

::

    MarqueeError
    ├── InvalidArgument      a field breaks a constraint; see `violations`
    ├── NotFound             no such item, model or release
    ├── FailedPrecondition   a page token that cannot be honoured; a model that abstains
    ├── Unauthenticated      the token is missing or not good
    ├── PermissionDenied     the token does not allow this
    ├── Overloaded           the server sheds load
    ├── Unavailable          no server, or no release loaded yet
    ├── DeadlineExceeded     no answer in time
    ├── Cancelled            the call was cancelled, or its client closed
    ├── Unimplemented        the server does not know this call
    └── Internal             a defect of the server, or of something on the way to it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of the request that breaks a constraint.

    Attributes:
        field: The path of the field, for example `subject.ratings[3].stars`.
        description: What the constraint asks for.
    """

    field: str
    description: str


class MarqueeError(Exception):
    """A call failed. Every error of a call is of a subclass.

    Attributes:
        message: What happened, in words.
        code: The name of the gRPC status, for example `NOT_FOUND`.
        reason: The name of the `ErrorReason` without its prefix, for example `ITEM_NOT_FOUND`.
            Stable, so good to branch on. Empty when the error did not come from Marquee itself.
        metadata: Facts about the reason, for example `{"item_id": "318"}`.
        violations: The fields at fault; empty but for `InvalidArgument`.
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
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return f"{self.reason or self.code}: {self.message}"

    @property
    def grpc_error(self) -> BaseException | None:
        """The `grpc.RpcError` behind this error; None for a subject's error in a batch."""
        return self.__cause__


class InvalidArgument(MarqueeError):
    """A field of the request breaks a constraint; `violations` names each."""

    default_code = "INVALID_ARGUMENT"


class NotFound(MarqueeError):
    """The item, model or release does not exist."""

    default_code = "NOT_FOUND"


class FailedPrecondition(MarqueeError):
    """The page token cannot be honoured, or the model cannot answer this subject."""

    default_code = "FAILED_PRECONDITION"


class Unauthenticated(MarqueeError):
    """The server asks for a token, or refuses the one given."""

    default_code = "UNAUTHENTICATED"


class PermissionDenied(MarqueeError):
    """The token does not allow this call."""

    default_code = "PERMISSION_DENIED"


class Overloaded(MarqueeError):
    """The server sheds load; try again later."""

    default_code = "RESOURCE_EXHAUSTED"


class Unavailable(MarqueeError):
    """No server could be reached, or it has no release loaded yet. Retries were made."""

    default_code = "UNAVAILABLE"


class DeadlineExceeded(MarqueeError):
    """No answer came in time."""

    default_code = "DEADLINE_EXCEEDED"


class Cancelled(MarqueeError):
    """The call was cancelled, or its client closed meanwhile."""

    default_code = "CANCELLED"


class Unimplemented(MarqueeError):
    """The server does not know this call: an older server, or none of ours."""

    default_code = "UNIMPLEMENTED"


class Internal(MarqueeError):
    """A defect of the server, or of something on the way to it."""

    default_code = "INTERNAL"


_BY_CODE: dict[str, type[MarqueeError]] = {
    kind.default_code: kind for kind in MarqueeError.__subclasses__()
}


def error_class(code: str) -> type[MarqueeError]:
    """The class for a status; `Internal` for those that no server of ours sends."""
    return _BY_CODE.get(code, Internal)
