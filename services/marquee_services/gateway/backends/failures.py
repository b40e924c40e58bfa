"""Why a backend did not answer."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Self


class Failure(StrEnum):
    """Why a backend did not answer; named as in `DegradedReason`."""

    UNAVAILABLE = "UNAVAILABLE"
    TIMEOUT = "TIMEOUT"
    RELEASE_MISSING = "RELEASE_MISSING"
    OVERLOADED = "OVERLOADED"


class BackendError(Exception):
    """A backend did not answer.

    Attributes:
        backend: `cf` or `inference`.
        failure: Why.
    """

    def __init__(self, backend: str, failure: Failure, detail: str) -> None:
        super().__init__(f"{backend}: {detail}")
        self.backend = backend
        self.failure = failure


class LastError(NamedTuple):
    """An error that an operator is told of.

    Attributes:
        text: What happened, "" for nothing.
        at: When, RFC 3339.
    """

    text: str = ""
    at: str = ""

    @classmethod
    def now(cls, text: str) -> Self:
        """One that happens now."""
        return cls(text, datetime.now(UTC).isoformat())
