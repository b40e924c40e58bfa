"""Why a backend did not answer."""

from __future__ import annotations

from enum import StrEnum


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
