"""Page tokens: which page of which list comes next."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import random
from dataclasses import dataclass

from marquee_services.errors import PageTokenMismatch

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
