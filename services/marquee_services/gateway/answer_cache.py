"""Keeps what known users were answered, for as long as it would be answered again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway.message_bytes import content_tag, number_tag, varint
from marquee_services.gateway.request_key import RequestKey

# What an entry takes beside its bytes: links, and the objects that hold them.
_OVERHEAD_BYTES = 500

_ID = content_tag(pb.RecommendResponse, "recommendation_id")
_TOKEN = content_tag(pb.RecommendResponse, "next_page_token")
_SOURCE = content_tag(pb.RecommendResponse, "source")
_TIME = number_tag(types_pb2.AnswerSource, "server_time_us")


@dataclass(frozen=True, slots=True)
class ReadyAnswer:
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
        self._max_bytes = max_bytes
        self._bytes = 0
        # By release and request, the longest unused first.
        self._answers: OrderedDict[tuple[str, RequestKey], ReadyAnswer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, release_id: str, key: RequestKey) -> ReadyAnswer | None:
        """The answer to the request of a key, if it is kept."""
        place = release_id, key
        answer = self._answers.get(place)
        if answer is not None:
            self._answers.move_to_end(place)
        return answer

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
        answer = ReadyAnswer(body.SerializeToString(), source, tuple(sorted(backends)), has_more)
        self.add(release_id, key, answer)

    def add(self, release_id: str, key: RequestKey, answer: ReadyAnswer) -> None:
        """Keeps an answer, unless the bound has no room for it or it is there."""
        place, size = (release_id, key), _size(key, answer)
        if place in self._answers or size > self._max_bytes:
            return
        self._answers[place] = answer
        self._bytes += size
        while self._bytes > self._max_bytes:
            (_, gone), old = self._answers.popitem(last=False)
            self._bytes -= _size(gone, old)


def _size(key: RequestKey, answer: ReadyAnswer) -> int:
    return len(key.subject) + len(key.options) + answer.nbytes


@lru_cache(maxsize=64)
def _shared(source: bytes) -> bytes:
    """The first object of equal bytes: few sources are met again and again."""
    return source
