"""Page tokens, which identify the next page of a list.

`PageToken.verify` checks that the token of a request is undamaged, and that the rest of the request
has not changed since the first page. `Releases.of_page_token` checks that the token's release is
still loaded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from marquee_services.errors import PageTokenMismatch

_CHECKSUM_BYTES = 8
# Positions in lists and in the feedback log are below this number.
_POSITIONS = 2**63
# Reused, because `json.dumps` with these separators would create an encoder for every token.
_JSON = json.JSONEncoder(separators=(",", ":"))
# Returns a string as JSON; the encoder would take several times as long.
_quoted: Callable[[str], str] = json.encoder.encode_basestring_ascii


@dataclass(frozen=True)
class PageToken:
    """The content of a page token.

    Attributes:
        list_id: The id of the list, which is the recommendation id of its first page; "" for
            searches.
        release_id: The release that ranked the first page.
        backends: The backends that took part in the first page's ranking.
        request_digest: The digest of the request to which the token belongs.
        offset: The number of items on the previous pages.
        feedback_version: The version of the user's feedback with which the first page was ranked;
            0 for none.
        left_out: The models that the first page's ranking left out because of overload.
    """

    list_id: str
    release_id: str
    backends: tuple[str, ...]
    request_digest: str
    offset: int
    feedback_version: int = 0
    left_out: tuple[str, ...] = ()

    @classmethod
    def verify(cls, text: str, digest: str) -> PageToken | None:
        """Decodes the page token of a request, and checks that it belongs to the request.

        Args:
            text: The token in the request; "" for the first page.
            digest: The digest of the rest of the request.

        Returns:
            The token; None for the first page.

        Raises:
            PageTokenMismatch: The token is damaged or belongs to another request.
        """
        if not text:
            return None
        token = cls.decode(text)
        if token.request_digest != digest:
            raise PageTokenMismatch("the request differs from the first page's")
        return token

    def encode(self) -> str:
        """Returns the token as URL-safe text."""
        ranked_by = _release_and_backends(self.release_id, self.backends)
        text = f"[{_quoted(self.list_id)},{ranked_by},{_quoted(self.request_digest)},{self.offset}"
        if self.feedback_version or self.left_out:
            text += f",{self.feedback_version}"
        if self.left_out:
            text += f",{_JSON.encode(self.left_out)}"
        body = f"{text}]".encode()
        return base64.urlsafe_b64encode(_checksum(body) + body).decode()

    @classmethod
    def decode(cls, text: str) -> PageToken:
        """Decodes a token.

        Raises:
            PageTokenMismatch: The text is not a token, or it is damaged.
        """
        try:
            raw = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
            body = raw[_CHECKSUM_BYTES:]
            if raw[:_CHECKSUM_BYTES] != _checksum(body):
                raise PageTokenMismatch("damaged")
            match json.loads(body):
                case [
                    str(list_id),
                    str(release_id),
                    [*backends],
                    str(request_digest),
                    int(offset),
                    *version,
                ] if 0 <= offset < _POSITIONS and all(isinstance(name, str) for name in backends):
                    token = cls(list_id, release_id, tuple(backends), request_digest, offset)
                    match version:
                        case []:
                            return token
                        case [int(feedback_version)] if 0 < feedback_version < _POSITIONS:
                            return replace(token, feedback_version=feedback_version)
                        case [int(feedback_version), [str(first), *others]] if (
                            feedback_version >= 0 and all(isinstance(name, str) for name in others)
                        ):
                            left_out = (first, *others)
                            return replace(
                                token, feedback_version=feedback_version, left_out=left_out
                            )
        except (ValueError, binascii.Error, RecursionError) as error:
            raise PageTokenMismatch("damaged") from error
        raise PageTokenMismatch("damaged")


def new_list_id() -> str:
    """Returns a random id for a list.

    The id need not be secret: a caller who knows it can only repeat the request of the list.
    """
    return f"{random.getrandbits(128):032x}"


@lru_cache(maxsize=64)
def _release_and_backends(release_id: str, backends: tuple[str, ...]) -> str:
    """Returns the fields of a token that are the same for most lists, as JSON."""
    return f"{_quoted(release_id)},{_JSON.encode(backends)}"


def _checksum(body: bytes) -> bytes:
    """Returns a checksum that detects damage; a forged token would only select another page."""
    return hashlib.sha256(b"marquee page token" + body).digest()[:_CHECKSUM_BYTES]
