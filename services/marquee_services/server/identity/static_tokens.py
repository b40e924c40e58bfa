"""Bearer tokens from a file that lists the name and the scopes of each token's holder."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import NamedTuple

import structlog

from marquee_services.errors import Unauthenticated
from marquee_services.server.identity.access import Caller, Scope
from marquee_services.server.identity.reloading import UnusableFile, read_utf8

_log = structlog.get_logger()
_DIGEST_PREFIX = "sha256:"


class _Entry(NamedTuple):
    digest: bytes
    caller: Caller


class StaticTokens:
    """Verifies the tokens that a file lists; implements `TokenVerifier`.

    Each line holds a name, scopes separated by commas, and a token or `sha256:` with the hex
    SHA-256 digest of one. Empty lines and lines that begin with `#` are ignored:

        # name   scopes               token
        shop     recommend,feedback   5f0c9e1d2b3a4c5d6e7f
        ops      admin                sha256:9f86d081884c7d659a2feaa0c55ad015…
    """

    def __init__(self, file: str, sole_holder: Caller | None = None) -> None:
        """Reads the file.

        Args:
            file: The file.
            sole_holder: If given, the file contains only this caller's token.

        Raises:
            UnusableFile: A line of the file does not have the form above.
            OSError: The file cannot be read.
        """
        self._file = Path(file)
        self._sole_holder = sole_holder
        self._text = read_utf8(self._file)
        self._entries = self._parse(self._text)

    def refresh(self) -> None:
        """Reads the file again; on failure, logs the error and keeps the current tokens."""
        try:
            text = read_utf8(self._file)
            if text == self._text:
                return
            self._entries = self._parse(text)
        except OSError as error:
            _log.error("tokens_refused", file=str(self._file), error=str(error))
        else:
            self._text = text
            _log.info("tokens_loaded", file=str(self._file), count=len(self._entries))

    async def verify(self, token: str) -> Caller:
        """Returns the holder of a token.

        The token is compared with every entry, each in constant time, so that the time that it
        takes reveals nothing.

        Raises:
            Unauthenticated: The token is unknown.
        """
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for entry in self._entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry.caller
        if found is None:
            raise Unauthenticated("the token is unknown")
        return found

    def _parse(self, text: str) -> list[_Entry]:
        if self._sole_holder is not None:
            token = text.strip()
            return [_Entry(_digest(token), self._sole_holder)] if token else []
        entries = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                name, scopes, token = words
                held = frozenset(map(Scope, scopes.split(",")))
                entries.append(_Entry(_digest(token), Caller(f"token:{name}", held)))
            except ValueError:
                # Without the cause, whose message may contain the token.
                raise UnusableFile(
                    f"{self._file}, line {number}: not `NAME SCOPE[,SCOPE] TOKEN` with scopes of "
                    f"{', '.join(Scope)}"
                ) from None
        return entries


def _digest(token: str) -> bytes:
    """Returns the SHA-256 digest of a token, or the digest that is given in its place.

    Raises:
        ValueError: The given digest does not have 64 hexadecimal digits.
    """
    if not token.startswith(_DIGEST_PREFIX):
        return hashlib.sha256(token.encode()).digest()
    digest = bytes.fromhex(token.removeprefix(_DIGEST_PREFIX))
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("not a SHA-256 digest")
    return digest
