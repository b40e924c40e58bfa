"""Caches the first pages of known users until the release or the user's feedback changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway.caching.counting_lru import CountingLRU
from marquee_services.gateway.caching.message_bytes import (
    SerializedResponse,
    length_delimited_tag,
    varint,
    varint_tag,
)
from marquee_services.gateway.caching.request_key import RequestKey

# The approximate memory of an entry's Python objects, in addition to its serialised bytes.
_OVERHEAD_BYTES = 500

# The release, the request, and the version of the user's feedback.
_Key: TypeAlias = tuple[str, RequestKey, int]

_ID = length_delimited_tag(pb.RecommendResponse, "recommendation_id")
_TOKEN = length_delimited_tag(pb.RecommendResponse, "next_page_token")
_SOURCE = length_delimited_tag(pb.RecommendResponse, "source")
_TIME = varint_tag(types_pb2.AnswerSource, "server_time_us")


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer without the parts that vary: its id, page token and timing.

    Attributes:
        body: The serialised RecommendResponse without its source.
        source: The serialised AnswerSource.
        backends: The names of the backends that took part in the ranking, sorted.
        has_more: Whether there is a next page.
    """

    body: bytes
    source: bytes
    backends: tuple[str, ...]
    has_more: bool

    def response(
        self, recommendation_id: str, next_page_token: str, server_time_us: int
    ) -> SerializedResponse:
        """Completes the answer to a serialised RecommendResponse.

        Args:
            recommendation_id: The id of this answer.
            next_page_token: The token of the next page; "" if there is none.
            server_time_us: The time that this answer took, in microseconds.
        """
        name, token = recommendation_id.encode(), next_page_token.encode()
        time = varint(server_time_us)
        return SerializedResponse(
            b"".join(
                (
                    *(_ID, varint(len(name)), name),
                    self.body,
                    *((_TOKEN, varint(len(token)), token) if token else ()),
                    *(_SOURCE, varint(len(self.source) + len(_TIME) + len(time))),
                    *(self.source, _TIME, time),
                )
            )
        )

    @property
    def nbytes(self) -> int:
        """The approximate memory of the answer in bytes; answers share their sources."""
        return len(self.body) + _OVERHEAD_BYTES


class AnswerCache:
    """Caches known users' first pages up to a number of bytes, evicting the least recently used.

    The answer to a known user depends only on the request, the route and the user's recorded
    feedback, and all three are part of the key. Entries therefore never become stale.

    Attributes:
        entries: The entries, for metrics.
    """

    def __init__(self, max_bytes: int) -> None:
        """Creates an empty cache of at most `max_bytes` bytes; 0 caches nothing."""
        # Each value is the entry's size, key included, and the answer.
        self.entries: CountingLRU[tuple[str, RequestKey, int], tuple[int, CachedAnswer]] = (
            CountingLRU(max_bytes, getsizeof=lambda entry: entry[0])
        )

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, route: str, key: RequestKey, feedback_version: int = 0) -> CachedAnswer | None:
        """Returns the answer of a route to a request; None if it is not cached.

        Args:
            route: The release, or the arm of an experiment, that answers (`Route.cache_key`).
            key: The key of the request.
            feedback_version: The version of the user's recorded feedback; 0 for none.
        """
        entry = self.entries.get((route, key, feedback_version))
        return None if entry is None else entry[1]

    def put(
        self,
        route: str,
        key: RequestKey,
        answer: CachedAnswer,
        kind: types_pb2.SubjectKind.ValueType,
        is_degraded: bool,
        feedback_version: int = 0,
    ) -> None:
        """Caches a computed first page if it is for a known user and not degraded.

        A user with recorded feedback counts as known.

        Args:
            route: The release or arm that answered (`Route.cache_key`).
            key: The key of the request.
            answer: The answer to the request.
            kind: The kind of the subject.
            is_degraded: Whether the answer is degraded.
            feedback_version: The version of the recorded feedback on which the answer is based; 0
                if there is none, or if the request itself contains ratings or likes.
        """
        if not is_degraded and (kind == types_pb2.SUBJECT_KIND_KNOWN or feedback_version):
            self.add(route, key, answer, feedback_version)

    def add(
        self, route: str, key: RequestKey, answer: CachedAnswer, feedback_version: int = 0
    ) -> None:
        """Caches an answer, unless it is already cached or larger than the whole cache."""
        full_key, size = (
            (route, key, feedback_version),
            len(key.subject) + len(key.options) + answer.nbytes,
        )
        if full_key not in self.entries and size <= self.entries.maxsize:
            self.entries[full_key] = size, answer
