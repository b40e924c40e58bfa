"""Why a call to a backend failed."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Self

from marquee_core.redaction import redact


class Failure(StrEnum):
    """Why a backend did not answer.

    `answering/degraded.py` maps each backend and failure to the protocol's `DegradedReason`.
    """

    UNAVAILABLE = "unavailable"  # no replica is healthy, or the call failed
    TIMEOUT = "timeout"  # no answer within the backend's timeout
    RELEASE_MISSING = "release_missing"  # the replica has not loaded the request's release
    OVERLOADED = "overloaded"  # too many users wait, here or in the backend


class BackendError(Exception):
    """A backend did not answer.

    Attributes:
        backend: The backend's name, `cf` or `inference`.
        failure: Why it did not answer.
    """

    def __init__(self, backend: str, failure: Failure, detail: str) -> None:
        super().__init__(f"{backend}: {detail}")
        self.backend = backend
        self.failure = failure


class LastError(NamedTuple):
    """The last error of a backend, as `GetStatus` reports it.

    Attributes:
        text: What happened; "" when there has been no error.
        at: When it happened, as an RFC 3339 timestamp; "" when there has been no error.
    """

    text: str = ""
    at: str = ""

    @classmethod
    def now(cls, text: str) -> Self:
        """Returns an error with the current time."""
        return cls(redact(text), datetime.now(UTC).isoformat())
