"""Keeps what known users were answered, for as long as it would be answered again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from cachetools import LRUCache

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway.lists import recommend_digest

# What an entry takes beside its bytes: links, and the objects that hold them.
_OVERHEAD_BYTES = 500


Answer: TypeAlias = pb.RecommendResponse | pb.BatchRecommendResponse.Recommendations


@dataclass(frozen=True)
class CachedAnswer:
    """An answer without what is new in each: its id, the next page's token, the time it took.

    Attributes:
        request: The request's key.
        content: The subject's kind and the items, as bytes of either kind of answer.
        source: The AnswerSource's bytes.
        unknown_item_ids: Unknown ids of the request.
        item_count: How many items there are.
        backends: The backends whose blend ranked it.
        has_more: Whether there is a next page.
    """

    request: bytes
    content: bytes
    source: bytes
    unknown_item_ids: tuple[str, ...]
    item_count: int
    backends: frozenset[str]
    has_more: bool

    def fill(self, answer: Answer, recommendation_id: str) -> None:
        """Makes an empty answer this one, under a new id."""
        answer.MergeFromString(self.content)
        answer.source.MergeFromString(self.source)
        answer.unknown_item_ids.extend(self.unknown_item_ids)
        answer.recommendation_id = recommendation_id

    @cached_property
    def digest(self) -> str:
        """The request's digest for page tokens."""
        return recommend_digest(pb.RecommendRequest.FromString(self.request))

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        parts = (self.request, self.content, self.source, *self.unknown_item_ids)
        return sum(map(len, parts)) + _OVERHEAD_BYTES


def request_key(request: pb.RecommendRequest) -> bytes:
    """What the answers to equal requests are kept under."""
    return request.SerializeToString(deterministic=True)


class AnswerCache:
    """First pages of known users, within a bound of bytes; the longest unused goes first.

    A known user's answer changes with the release alone, so nothing else makes an entry stale.
    """

    def __init__(self, max_bytes: int) -> None:
        """Takes the bound; 0 keeps nothing."""
        # By release and request.
        self._answers: LRUCache[tuple[str, bytes], CachedAnswer] = LRUCache(
            max_bytes, getsizeof=lambda answer: answer.nbytes
        )

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, release_id: str, key: bytes) -> CachedAnswer | None:
        """The answer to the request of a key, if it is kept."""
        return self._answers.get((release_id, key))

    def put(
        self,
        release_id: str,
        request: pb.RecommendRequest,
        response: pb.RecommendResponse,
        backends: frozenset[str],
        has_more: bool,
    ) -> None:
        """Keeps the whole answer to a known user's first page; others it does not."""
        if (
            request.page_token
            or response.source.degraded
            or response.subject_kind != types_pb2.SUBJECT_KIND_KNOWN
        ):
            return
        content = pb.RecommendResponse(subject_kind=response.subject_kind, items=response.items)
        self.add(
            release_id,
            CachedAnswer(
                request_key(request),
                content.SerializeToString(),
                response.source.SerializeToString(),
                tuple(response.unknown_item_ids),
                len(response.items),
                backends,
                has_more,
            ),
        )

    def add(self, release_id: str, answer: CachedAnswer) -> None:
        """Keeps an answer, unless the bound has no room for it or it is there."""
        key = release_id, answer.request
        if key not in self._answers and answer.nbytes <= self._answers.maxsize:
            self._answers[key] = answer
