"""Verifies JSON Web Tokens (RFC 7519), bearer tokens that an identity provider signs.

Imported only if a server accepts such tokens, because it requires PyJWT.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from marquee_services.errors import Unauthenticated
from marquee_services.server.identity.access import Caller, Scope
from marquee_services.server.identity.reloading import UnusableFile, read_utf8
from marquee_services.server.settings import is_loopback

_log = structlog.get_logger()

# Asymmetric signatures only: with a symmetric key, every verifier could also issue tokens.
_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
_MAX_KEYS_BYTES = 1024 * 1024
_FETCH_TIMEOUT_S = 3.0
# Seconds between fetches of the keys, and between fetches that tokens with unknown keys trigger.
_FETCH_INTERVAL_S, _MIN_FETCH_INTERVAL_S = 300.0, 10.0
# The most verified tokens that are cached; verifying a signature takes as long as a stored answer.
_MAX_VERIFIED = 4096
_LEEWAY_S = 10
_NOT_THIS_KEY = (
    jwt.InvalidSignatureError,
    jwt.InvalidAlgorithmError,
    jwt.InvalidKeyError,
    TypeError,  # The algorithm requires a key of another type.
)
_MAX_NAME = 128


class JSONWebTokens:
    """Verifies the signature, issuer, audience and times of tokens; implements `TokenVerifier`.

    The claim `scope` (RFC 8693, separated by spaces) or `scp` (the same, or a list) holds the
    scopes; unknown ones are ignored. The claim `sub` names the caller.
    """

    def __init__(self, keys: str, issuer: str, audience: str) -> None:
        """Reads the keys from a file; keys at a URL are fetched when they are first needed.

        Args:
            keys: A file with a JSON Web Key Set (RFC 7517) or PEM public keys, or the URL of a key
                set.
            issuer: The required claim `iss`.
            audience: The required claim `aud`.

        Raises:
            UnusableFile: The keys cannot be parsed, or would be fetched without TLS.
            OSError: The file cannot be read.
        """
        self._source = keys
        self._issuer = issuer
        self._audience = audience
        self._is_url = "://" in keys
        self._text = ""
        self._keys: dict[str, Any] = {}
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._verified: OrderedDict[str, Caller] = OrderedDict()
        if self._is_url:
            parts = urlsplit(keys)
            if parts.scheme != "https" and not (
                parts.scheme == "http" and is_loopback(parts.netloc)
            ):
                raise UnusableFile(f"the keys at {keys!r} must be fetched with https")
        else:
            self._replace_keys(read_utf8(Path(keys)))

    def refresh(self) -> None:
        """Reads the keys again; on failure, logs the error and keeps the current keys."""
        if self._is_url:
            wait = _FETCH_INTERVAL_S if self._keys else _MIN_FETCH_INTERVAL_S
            if time.monotonic() - self._fetched_at >= wait:
                self._start_fetch()
            return
        try:
            self._replace_keys(read_utf8(Path(self._source)))
        except OSError as error:
            _log.error("token_keys_refused", source=self._source, error=str(error))

    async def verify(self, token: str) -> Caller:
        """Returns the caller that a token names.

        Raises:
            Unauthenticated: The token is malformed, has expired, is from another issuer or for
                another audience, or is not signed with one of the keys.
        """
        caller = self._verified.get(token)
        if caller is None:
            caller = self._caller(await self._claims(token))
            self._verified[token] = caller
            if len(self._verified) > _MAX_VERIFIED:
                self._verified.popitem(last=False)
        elif caller.expires is not None and caller.expires + _LEEWAY_S < time.time():
            del self._verified[token]
            raise Unauthenticated("the token has expired")
        return caller

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
        except (jwt.InvalidTokenError, RecursionError) as error:
            raise Unauthenticated("the token is not a JSON Web Token") from error
        if key_id not in self._keys and self._is_url:
            self._start_fetch()
            if self._fetching is not None:
                await asyncio.shield(self._fetching)
        # A token without a key id may be signed with any key.
        candidates = [self._keys[key_id]] if key_id in self._keys else []
        if not key_id:
            candidates = list(self._keys.values())
        for key in candidates:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=_ALGORITHMS,
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=_LEEWAY_S,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
            except _NOT_THIS_KEY:
                continue
            except jwt.ExpiredSignatureError:
                raise Unauthenticated("the token has expired") from None
            except jwt.InvalidTokenError as error:
                raise Unauthenticated(f"the token is refused: {error}") from error
            return claims
        raise Unauthenticated("the token is not signed with a known key")

    def _caller(self, claims: dict[str, Any]) -> Caller:
        words = claims.get("scope", claims.get("scp", ()))
        given = words.split() if isinstance(words, str) else words
        scopes = frozenset(scope for scope in Scope if isinstance(given, list) and scope in given)
        name = "".join(c if c.isprintable() else "?" for c in str(claims["sub"])[:_MAX_NAME])
        try:
            expires = float(claims["exp"])
        except OverflowError as error:
            raise Unauthenticated("the token's expiry is not a valid time") from error
        return Caller(f"subject:{name}", scopes, expires)

    def _start_fetch(self) -> None:
        """Fetches the keys in the background, unless that is in progress or has just been done."""
        if self._fetching is not None and not self._fetching.done():
            return
        if time.monotonic() - self._fetched_at >= _MIN_FETCH_INTERVAL_S:
            self._fetched_at = time.monotonic()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            self._replace_keys(await asyncio.to_thread(_download, self._source))
        except OSError as error:
            _log.error("token_keys_unavailable", source=self._source, error=str(error))

    def _replace_keys(self, text: str) -> None:
        """Replaces the keys.

        Raises:
            UnusableFile: The text contains no usable key.
        """
        if text == self._text:
            return
        try:
            keys = _parse(text)
        except ValueError as error:
            raise UnusableFile(f"{self._source}: {error}") from error
        if not keys:
            raise UnusableFile(f"{self._source} contains no key for {', '.join(_ALGORITHMS)}")
        self._keys, self._text = keys, text
        # A key may have been withdrawn, and its tokens with it.
        self._verified.clear()
        _log.info("token_keys_loaded", source=self._source, count=len(keys))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Turns redirects into errors, because they could lead to a URL without TLS."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Returns None, so that the redirect is treated as an error."""


def _download(url: str) -> str:
    # The constructor has checked the scheme.
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(url, timeout=_FETCH_TIMEOUT_S) as response:  # nosec B310
        data: bytes = response.read(_MAX_KEYS_BYTES + 1)
    if len(data) > _MAX_KEYS_BYTES:
        raise UnusableFile("the key set is larger than 1 MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UnusableFile("the key set is not UTF-8") from error


def _parse(text: str) -> dict[str, Any]:
    """Returns the public keys by id; keys without an id are numbered.

    Raises:
        ValueError: The text is neither a JSON Web Key Set nor PEM.
    """
    if text.lstrip().startswith("{"):
        try:
            found = jwt.PyJWKSet.from_dict(json.loads(text)).keys
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a JSON Web Key Set: {error}") from error
        usable = [
            key
            for key in found
            if key.algorithm_name in _ALGORITHMS and key.public_key_use != "enc"
        ]
        ids = [key.key_id if isinstance(key.key_id, str) else "" for key in usable]
        return {name or str(n): key for n, (name, key) in enumerate(zip(ids, usable, strict=True))}
    try:
        return {str(number): load_pem_public_key(pem) for number, pem in enumerate(_pems(text))}
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def _pems(text: str) -> Sequence[bytes]:
    end = "-----END PUBLIC KEY-----"
    return [f"{part}{end}\n".encode().lstrip() for part in text.split(end)[:-1]]
