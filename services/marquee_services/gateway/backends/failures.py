"""The ways in which a call to a backend can fail."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Self

from marquee_core.redaction import redact


class Failure(StrEnum):
    """The reason for which a backend did not answer.

    `answering/degradation.py` maps each backend and failure to the protocol's `DegradedReason`.
    """

    UNAVAILABLE = "unavailable"  # no replica is healthy, or the call failed
    TIMEOUT = "timeout"  # no answer within the backend's timeout
    RELEASE_MISSING = "release_missing"  # the replica has not loaded the request's release
    OVERLOADED = "overloaded"  # too many users are queued, in the gateway or in the backend


class BackendFailure(NamedTuple):
    """Why a backend has no part in an answer.

    Answers and cached rankings hold this instead of the exception, whose traceback keeps everything
    that the call has read in memory.

    Attributes:
        backend: The backend's name, `cf` or `inference`.
        failure: The reason.
    """

    backend: str
    failure: Failure


class BackendError(Exception):
    """A backend did not answer.

    Attributes:
        reason: The backend, and why it did not answer.
    """

    def __init__(self, backend: str, failure: Failure, detail: str) -> None:
        super().__init__(f"{backend}: {detail}")
        self.reason = BackendFailure(backend, failure)


class LastError(NamedTuple):
    """The last error of a backend, as `GetStatus` reports it.

    Attributes:
        text: The error; "" if there has been none.
        at: When it occurred, as an RFC 3339 timestamp; "" if there has been no error.
    """

    text: str = ""
    at: str = ""

    @classmethod
    def now(cls, text: str) -> Self:
        """Returns an error with the current time."""
        return cls(redact(text), datetime.now(UTC).isoformat())
