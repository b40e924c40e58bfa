"""Keys that are equal for requests with the same answer."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE

_DIGEST_LENGTH = 16


class RequestKey(NamedTuple):
    """The parts of a request that determine its list, and the page size.

    Attributes:
        subject: The serialised subject.
        page_size: The number of items of a page.
        options: The serialised options; empty if all options have their defaults.
    """

    subject: bytes
    page_size: int
    options: bytes

    @classmethod
    def of(cls, request: pb.RecommendRequest) -> RequestKey:
        """Returns the key of a Recommend request."""
        return cls.of_subject(request.subject, request.page_size, options_key(request.options))

    @classmethod
    def of_subject(cls, subject: types_pb2.Subject, page_size: int, options: bytes) -> RequestKey:
        """Returns the key of a batch's subject, as of a Recommend request with these options."""
        return cls(
            subject.SerializeToString(deterministic=True), page_size or DEFAULT_PAGE_SIZE, options
        )

    @property
    def digest(self) -> str:
        """A digest that all pages of a list share; the page size may change between pages."""
        return request_digest(b"%d:" % len(self.subject), self.subject, self.options)


def options_key(options: pb.RecommendOptions) -> bytes:
    """Returns the options of a `RequestKey`."""
    return options.SerializeToString(deterministic=True)


def request_digest(*parts: bytes) -> str:
    """Returns a digest of the parts of a request that must not change from page to page."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:_DIGEST_LENGTH]
