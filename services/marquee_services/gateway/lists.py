"""Ranked lists whose next pages may be asked for, and the tokens that name those pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import random
from dataclasses import dataclass, replace

from cachetools import LRUCache

from marquee_services.errors import PageTokenMismatch
from marquee_services.gateway.scored import Scored

_CHECK_BYTES = 8
# `json.dumps` would make one for each token.
_JSON = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True)
class PageToken:
    """What a page token says.

    Attributes:
        list_id: The list (a recommendation id).
        release_id: The release that it was made with.
        backends: The backends whose blend ranked it.
        request: A digest of the request that it belongs to.
        offset: How many items the pages before it held.
    """

    list_id: str
    release_id: str
    backends: tuple[str, ...]
    request: str
    offset: int

    @classmethod
    def of(cls, text: str, digest: str) -> PageToken | None:
        """The token that a request has for a further page; None for the first.

        Raises:
            PageTokenMismatch: It is damaged, or of a request with another digest.
        """
        if not text:
            return None
        token = cls.decode(text)
        if token.request != digest:
            raise PageTokenMismatch("the request differs from the first page's")
        return token

    def encode(self) -> str:
        """The token as text."""
        fields = (self.list_id, self.release_id, self.backends, self.request, self.offset)
        body = _JSON.encode(fields).encode()
        return base64.urlsafe_b64encode(_check(body) + body).decode()

    @classmethod
    def decode(cls, text: str) -> PageToken:
        """Reads a token.

        Raises:
            PageTokenMismatch: The text is not a token.
        """
        try:
            raw = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
            body = raw[_CHECK_BYTES:]
            if raw[:_CHECK_BYTES] != _check(body):
                raise PageTokenMismatch("damaged")
            match json.loads(body):
                case [
                    str(list_id),
                    str(release_id),
                    [*backends],
                    str(request),
                    int(offset),
                ] if offset >= 0 and all(isinstance(name, str) for name in backends):
                    return cls(list_id, release_id, tuple(backends), request, offset)
        except (ValueError, binascii.Error, RecursionError) as error:
            raise PageTokenMismatch("damaged") from error
        raise PageTokenMismatch("damaged")


def new_list_id() -> str:
    """A name for a list; random, and no secret: it opens nothing that its request does not."""
    return f"{random.getrandbits(128):032x}"


def _check(body: bytes) -> bytes:
    """Tells a damaged token; it is no secret: a forged token can only ask for another page."""
    return hashlib.sha256(b"marquee page token" + body).digest()[:_CHECK_BYTES]


class ListMemory:
    """Keeps scored lists, within a bound of bytes; the longest unused goes first.

    A page of a list that is kept is cut from the same scores as the page before. Of one that is
    not, the scores are computed anew by the same release and blend.
    """

    def __init__(self, max_bytes: int) -> None:
        """Takes the bound."""
        self._lists: LRUCache[str, Scored] = LRUCache(
            max_bytes, getsizeof=lambda scored: scored.nbytes
        )

    def __len__(self) -> int:
        return len(self._lists)

    def put(self, list_id: str, scored: Scored) -> None:
        """Keeps a list, in the place of what was kept of it; one beyond the bound is not kept."""
        if self._lists.get(list_id) is scored or scored.nbytes > self._lists.maxsize:
            return
        # Scores are views of a whole batch's answer, which would stay in memory with them.
        outputs = {name: scores.copy() for name, scores in scored.outputs.items()}
        self._lists[list_id] = replace(scored, outputs=outputs)

    def get(self, list_id: str) -> Scored | None:
        """A list, if it is kept."""
        return self._lists.get(list_id)
