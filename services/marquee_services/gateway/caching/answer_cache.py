"""Keeps what known users were answered, for as long as it would be answered again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cachetools import LRUCache

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway.caching.message_bytes import content_tag, number_tag, varint
from marquee_services.gateway.caching.request_key import RequestKey

# What an entry takes beside its bytes: links, and the objects that hold them.
_OVERHEAD_BYTES = 500

_ID = content_tag(pb.RecommendResponse, "recommendation_id")
_TOKEN = content_tag(pb.RecommendResponse, "next_page_token")
_SOURCE = content_tag(pb.RecommendResponse, "source")
_TIME = number_tag(types_pb2.AnswerSource, "server_time_us")


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer without what is new in each: its id, the next page's token, the time it took.

    Attributes:
        body: The rest of a RecommendResponse but its source, as bytes.
        source: The AnswerSource's bytes.
        backends: The backends whose blend ranked it, by name.
        has_more: Whether there is a next page.
    """

    body: bytes
    source: bytes
    backends: tuple[str, ...]
    has_more: bool

    def response(self, recommendation_id: str, next_page_token: str, server_time_us: int) -> bytes:
        """The whole answer, a RecommendResponse's bytes."""
        name, token = recommendation_id.encode(), next_page_token.encode()
        time = varint(server_time_us)
        return b"".join(
            (
                *(_ID, varint(len(name)), name),
                self.body,
                *((_TOKEN, varint(len(token)), token) if token else ()),
                *(_SOURCE, varint(len(self.source) + len(_TIME) + len(time))),
                *(self.source, _TIME, time),
            )
        )

    @property
    def nbytes(self) -> int:
        """About how much memory it takes; answers share their sources."""
        return len(self.body) + _OVERHEAD_BYTES


class AnswerCache:
    """First pages of known users, within a bound of bytes; the longest unused goes first.

    A known user's answer changes with the release alone, so nothing else makes an entry stale.
    """

    def __init__(self, max_bytes: int) -> None:
        """Takes the bound; 0 keeps nothing."""
        # By release and request, each with its size, to which the request belongs as well.
        self._answers: LRUCache[tuple[str, RequestKey], tuple[int, CachedAnswer]] = LRUCache(
            max_bytes, getsizeof=lambda entry: entry[0]
        )

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, release_id: str, key: RequestKey) -> CachedAnswer | None:
        """The answer to the request of a key, if it is kept."""
        entry = self._answers.get((release_id, key))
        return None if entry is None else entry[1]

    def put(
        self,
        release_id: str,
        key: RequestKey,
        response: pb.RecommendResponse,
        backends: frozenset[str],
        has_more: bool,
    ) -> None:
        """Keeps the whole answer to a known user's first page; others it does not."""
        if response.source.degraded or response.subject_kind != types_pb2.SUBJECT_KIND_KNOWN:
            return
        body = pb.RecommendResponse(
            subject_kind=response.subject_kind,
            items=response.items,
            unknown_item_ids=response.unknown_item_ids,
        )
        source = _shared(response.source.SerializeToString())
        answer = CachedAnswer(body.SerializeToString(), source, tuple(sorted(backends)), has_more)
        self.add(release_id, key, answer)

    def add(self, release_id: str, key: RequestKey, answer: CachedAnswer) -> None:
        """Keeps an answer, unless the bound has no room for it or it is there."""
        place, size = (release_id, key), len(key.subject) + len(key.options) + answer.nbytes
        if place not in self._answers and size <= self._answers.maxsize:
            self._answers[place] = size, answer


@lru_cache(maxsize=64)
def _shared(source: bytes) -> bytes:
    """The first object of equal bytes: few sources are met again and again."""
    return source
