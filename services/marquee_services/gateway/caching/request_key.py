"""What requests have in common that are answered alike."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE

_DIGEST_DIGITS = 16


class RequestKey(NamedTuple):
    """All of a request but which page is asked for.

    Attributes:
        subject: The subject's bytes.
        page_size: How many items a page holds.
        options: The options' bytes; empty for the defaults, set or not.
    """

    subject: bytes
    page_size: int
    options: bytes

    @classmethod
    def of(cls, request: pb.RecommendRequest) -> RequestKey:
        """The key of a single call."""
        return cls.of_subject(request.subject, request.page_size, options_key(request.options))

    @classmethod
    def of_subject(cls, subject: types_pb2.Subject, page_size: int, options: bytes) -> RequestKey:
        """The key of the single call that asks for a subject of a batch."""
        return cls(
            subject.SerializeToString(deterministic=True), page_size or DEFAULT_PAGE_SIZE, options
        )

    @property
    def digest(self) -> str:
        """Tells whether a further page is asked for as the first was; its size may differ."""
        return request_digest(b"%d:" % len(self.subject), self.subject, self.options)


def options_key(options: pb.RecommendOptions) -> bytes:
    """Options as a `RequestKey` has them."""
    return options.SerializeToString(deterministic=True)


def request_digest(*parts: bytes) -> str:
    """A digest of what must stay the same from page to page."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:_DIGEST_DIGITS]
