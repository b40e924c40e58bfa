"""Errors that a service reports to its caller.

Each class defines the gRPC status and the `ErrorReason` that callers receive. Any layer may raise
these errors: `server/interceptor.py` ends the call with them, and `server/status.py` encodes their
details.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc

from marquee.v1 import errors_pb2

_Code = grpc.StatusCode
_Reason = errors_pb2.ErrorReason


class ServiceError(Exception):
    """Base class of the errors that a service reports to its caller.

    Attributes:
        code: The gRPC status code of the call.
        reason: The machine-readable reason in the error details.
    """

    code: ClassVar[grpc.StatusCode]
    reason: ClassVar[errors_pb2.ErrorReason.ValueType]

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        """Checks that a subclass defines its own code and reason.

        Args:
            abstract: True for a base class that is never raised itself.
            kwargs: Passed on to the next class in the method resolution order.

        Raises:
            TypeError: The class lacks `code` or `reason` and is not abstract.
        """
        super().__init_subclass__(**kwargs)
        missing = {"code", "reason"} - vars(cls).keys()
        if missing and not abstract:
            raise TypeError(f"{cls.__name__} does not define {' and '.join(sorted(missing))}")

    @property
    def metadata(self) -> dict[str, str]:
        """Machine-readable details, by key."""
        return {}


@dataclass(frozen=True)
class FieldViolation:
    """A request field that violates a constraint.

    Attributes:
        field: The path of the field, for example `subject.ratings[3].stars`.
        reason: The constraint, or how the value violates it.
    """

    field: str
    reason: str


MAX_REPORTED_VIOLATIONS = 16
"""Limited because errors are sent as trailing metadata, which proxies limit to a few kilobytes."""


class InvalidFields(ServiceError):
    """Fields of the request violate their constraints.

    Attributes:
        violations: The first `MAX_REPORTED_VIOLATIONS` violations.
        omitted: Number of further violations.
    """

    code = _Code.INVALID_ARGUMENT
    reason = _Reason.ERROR_REASON_INVALID_FIELD

    def __init__(self, violations: list[FieldViolation]) -> None:
        """Creates the error from all violations, at least one."""
        self.violations = violations[:MAX_REPORTED_VIOLATIONS]
        self.omitted = len(violations) - len(self.violations)
        # The field of a violation by the whole message is empty.
        text = "; ".join(f"{v.field}: {v.reason}" if v.field else v.reason for v in self.violations)
        super().__init__(f"{text}; and {self.omitted} more" if self.omitted else text)

    @property
    def metadata(self) -> dict[str, str]:
        """The field paths, separated by commas, and the number of omitted violations."""
        names = [violation.field for violation in self.violations if violation.field]
        fields = {"fields": ",".join(names)}
        return fields | ({"omitted": str(self.omitted)} if self.omitted else {})


class _DetailError(ServiceError, abstract=True):
    """An error whose message and metadata contain one value.

    Attributes:
        key: Key of the value in the metadata.
        text: The message, with `{}` for the value.
        value: The value, for example the id of a release.
    """

    key: ClassVar[str]
    text: ClassVar[str]

    def __init__(self, value: str) -> None:
        super().__init__(self.text.format(value))
        self.value = value

    @property
    def metadata(self) -> dict[str, str]:
        """The value by its key."""
        return {self.key: self.value}


class ReleaseNotFound(_DetailError):
    """The server has not loaded the requested release."""

    code = _Code.NOT_FOUND
    reason = _Reason.ERROR_REASON_RELEASE_NOT_FOUND
    key, text = "release_id", "release {!r} is not loaded on this server"


class ModelNotFound(_DetailError):
    """The release has no model with the requested name."""

    code = _Code.NOT_FOUND
    reason = _Reason.ERROR_REASON_MODEL_NOT_FOUND
    key, text = "model", "the release has no model {!r}"


class ItemNotFound(_DetailError):
    """The release has no item with the requested id."""

    code = _Code.NOT_FOUND
    reason = _Reason.ERROR_REASON_ITEM_NOT_FOUND
    key, text = "item_id", "the release has no item {!r}"


class ModelUnavailable(_DetailError):
    """The model that the request selects did not answer."""

    code = _Code.UNAVAILABLE
    reason = _Reason.ERROR_REASON_MODEL_UNAVAILABLE
    key, text = "model", "model {!r} did not answer"


class BackendUnavailable(_DetailError):
    """A backend that ranked the first page did not answer for a later page."""

    code = _Code.UNAVAILABLE
    reason = _Reason.ERROR_REASON_BACKEND_UNAVAILABLE
    key, text = "backend", "backend {!r}, which ranked the first page, did not answer"


class ModelAbstains(_DetailError):
    """The model that the request selects has no answer for the subject or item."""

    code = _Code.FAILED_PRECONDITION
    reason = _Reason.ERROR_REASON_MODEL_ABSTAINS
    key, text = "model", "model {!r} has no answer for this subject or item"


class NoPredictedStars(_DetailError):
    """The release predicts no ratings because it was trained on implicit feedback."""

    code = _Code.FAILED_PRECONDITION
    reason = _Reason.ERROR_REASON_NO_PREDICTED_STARS
    key = "release_id"
    text = "release {!r} was trained on implicit feedback and predicts no stars"


class PageTokenMismatch(_DetailError):
    """The page token is damaged or belongs to another request."""

    code = _Code.FAILED_PRECONDITION
    reason = _Reason.ERROR_REASON_PAGE_TOKEN_MISMATCH
    key, text = "why", "the page token is not valid here: {}"


class PageTokenExpired(_DetailError):
    """The release that the page token belongs to is no longer loaded."""

    code = _Code.FAILED_PRECONDITION
    reason = _Reason.ERROR_REASON_PAGE_TOKEN_EXPIRED
    key, text = "release_id", "the page token belongs to release {!r}, which is no longer loaded"


class EventIdReused(_DetailError):
    """A different event has the same event id, in the log or in the same call."""

    code = _Code.FAILED_PRECONDITION
    reason = _Reason.ERROR_REASON_EVENT_ID_REUSED
    key, text = "event_id", "the id {!r} belongs to another event, in the log or in the same call"


class Retryable(_DetailError, abstract=True):
    """The call failed because a resource is exhausted, and should be retried later.

    Attributes:
        retry_after_s: Seconds after which the call should be retried.
    """

    def __init__(self, value: str, retry_after_s: float = 0.1) -> None:
        super().__init__(value)
        self.retry_after_s = retry_after_s


class Overloaded(Retryable):
    """The server refuses the call because too many calls are in progress."""

    code = _Code.RESOURCE_EXHAUSTED
    reason = _Reason.ERROR_REASON_OVERLOADED
    key, text = "limit", "the limit of {} calls in progress is reached"


class Busy(Overloaded):
    """The answer must be computed, and too many answers are being computed already."""

    code = _Code.RESOURCE_EXHAUSTED
    reason = _Reason.ERROR_REASON_OVERLOADED
    key, text = "limit", "the limit of {} answers being computed is reached"


class TooManyBatches(Overloaded):
    """Too many batches are in progress, of all callers or of this one."""

    code = _Code.RESOURCE_EXHAUSTED
    reason = _Reason.ERROR_REASON_OVERLOADED
    key, text = "limit", "the limit of {} batches in progress is reached"


class ResponsesNotRead(Retryable):
    """The caller does not read the responses to its call."""

    code = _Code.RESOURCE_EXHAUSTED
    reason = _Reason.ERROR_REASON_OVERLOADED
    key, text = "limit", "the responses were not read for {} seconds"


class NoRelease(ServiceError):
    """The server has no release yet: none is loaded, or, in the gateway, none is in service."""

    code = _Code.UNAVAILABLE
    reason = _Reason.ERROR_REASON_NO_RELEASE

    def __init__(self, text: str = "no release is loaded yet") -> None:
        super().__init__(text)


class Draining(ServiceError):
    """The server is shutting down, and ends what it cannot finish in time."""

    code = _Code.UNAVAILABLE
    reason = _Reason.ERROR_REASON_DRAINING

    def __init__(self) -> None:
        super().__init__("this server is shutting down; send unanswered requests to another one")


class FeedbackUnavailable(ServiceError):
    """The feedback log does not respond, or this gateway has not read enough of it yet."""

    code = _Code.UNAVAILABLE
    reason = _Reason.ERROR_REASON_FEEDBACK_UNAVAILABLE


class FeedbackDisabled(ServiceError):
    """The gateway was started without a feedback log."""

    code = _Code.UNIMPLEMENTED
    reason = _Reason.ERROR_REASON_FEEDBACK_DISABLED

    def __init__(self) -> None:
        super().__init__("this gateway was started without a feedback log (--feedback)")


class Unauthenticated(_DetailError):
    """The call has no valid token."""

    code = _Code.UNAUTHENTICATED
    reason = _Reason.ERROR_REASON_UNAUTHENTICATED
    key, text = "why", "this server requires a valid bearer token: {}"


class PermissionDenied(ServiceError):
    """The caller is authenticated, but not permitted to make this call."""

    code = _Code.PERMISSION_DENIED
    reason = _Reason.ERROR_REASON_PERMISSION_DENIED

    def __init__(self, text: str, scope: str = "") -> None:
        """Creates the error.

        Args:
            text: The message.
            scope: The scope that the caller lacks; "" if the cause is not a scope.
        """
        super().__init__(text)
        self._scope = scope

    @property
    def metadata(self) -> dict[str, str]:
        """The scope that the caller lacks."""
        return {"scope": self._scope} if self._scope else {}


class RateLimited(ServiceError):
    """The caller makes more calls than its rate limit allows."""

    code = _Code.RESOURCE_EXHAUSTED
    reason = _Reason.ERROR_REASON_RATE_LIMITED

    def __init__(self, wait: float) -> None:
        """Creates the error with the seconds until the caller may call again."""
        super().__init__(f"the rate limit of this caller is reached; try again in {wait:.3f} s")
        self.retry_after_s = wait

    @property
    def metadata(self) -> dict[str, str]:
        """The milliseconds until the caller may call again."""
        return {"retry_after_ms": str(math.ceil(self.retry_after_s * 1000))}


class AdminRequired(ServiceError):
    """The method requires an administrator's token."""

    code = _Code.PERMISSION_DENIED
    reason = _Reason.ERROR_REASON_ADMIN_REQUIRED

    def __init__(self) -> None:
        super().__init__("this method requires a token with the scope 'admin'")


class DeadlineExceeded(ServiceError):
    """The deadline passed before an answer was ready."""

    code = _Code.DEADLINE_EXCEEDED
    reason = _Reason.ERROR_REASON_DEADLINE_EXCEEDED

    def __init__(self, text: str = "the deadline passed before an answer was ready") -> None:
        super().__init__(text)
