"""What can go wrong, without word of a transport; `server.interceptor` maps these to statuses."""

from __future__ import annotations

from dataclasses import dataclass


class ServiceError(Exception):
    """An error that a caller is told of."""

    @property
    def metadata(self) -> dict[str, str]:
        """Machine-readable details."""
        return {}


@dataclass(frozen=True)
class FieldViolation:
    """A field that breaks a constraint.

    Attributes:
        field: The path of the field, for example `subject.ratings[3].stars`.
        reason: What the constraint asks for.
    """

    field: str
    reason: str


MAX_VIOLATIONS_TOLD = 16
"""Errors travel in trailers, for which proxies and clients reserve a few kilobytes."""


class InvalidFields(ServiceError):
    """Fields of the request break their constraints.

    Attributes:
        violations: The first `MAX_VIOLATIONS_TOLD` of them.
        omitted: How many there are beyond those.
    """

    def __init__(self, violations: list[FieldViolation]) -> None:
        """Takes at least one violation."""
        self.violations = violations[:MAX_VIOLATIONS_TOLD]
        self.omitted = len(violations) - len(self.violations)
        text = "; ".join(f"{v.field}: {v.reason}" for v in self.violations)
        super().__init__(f"{text}; and {self.omitted} more" if self.omitted else text)

    @property
    def metadata(self) -> dict[str, str]:
        """The fields, separated by commas, and how many more there are."""
        fields = {"fields": ",".join(violation.field for violation in self.violations)}
        return fields | ({"omitted": str(self.omitted)} if self.omitted else {})


class _About(ServiceError):
    """An error about one named thing."""

    key: str
    text: str

    def __init__(self, name: str) -> None:
        super().__init__(self.text.format(name))
        self.name = name

    @property
    def metadata(self) -> dict[str, str]:
        """The name of the thing."""
        return {self.key: self.name}


class ReleaseNotFound(_About):
    """The release is not loaded here."""

    key, text = "release_id", "release {!r} is not loaded here"


class ModelNotFound(_About):
    """The release has no such model."""

    key, text = "model", "the release has no model {!r}"


class ItemNotFound(_About):
    """The release has no such item."""

    key, text = "item_id", "the release has no item {!r}"


class ModelUnavailable(_About):
    """The model that is asked for alone did not answer."""

    key, text = "model", "model {!r} did not answer"


class BackendUnavailable(_About):
    """A backend that a further page needs, as its first page was ranked with it, is away."""

    key, text = "backend", "backend {!r}, with which the first page was ranked, did not answer"


class ModelAbstains(_About):
    """The model that is asked for alone cannot answer the subject."""

    key, text = "model", "model {!r} cannot answer this subject"


class PageTokenMismatch(_About):
    """The page token is of another request, or damaged."""

    key, text = "why", "the page token cannot be honoured: {}"


class PageTokenExpired(_About):
    """The release of a page token is no longer held."""

    key, text = "release_id", "the page token is of release {!r}, which is no longer held"


class Overloaded(_About):
    """The server sheds load."""

    key, text = "limit", "{} calls are in progress, which is the limit"


class NoRelease(ServiceError):
    """No release is loaded yet."""

    def __init__(self) -> None:
        super().__init__("no release is loaded yet")


class DeadlineExceeded(ServiceError):
    """The deadline passed before an answer was ready."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before an answer was ready")
