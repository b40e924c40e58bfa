"""Access control: identities from certificates and tokens, their scopes, and rate limits.

The interceptor calls `AccessControl.admit` before each call. Callers are checked only if the
settings name identities or tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, cast

import grpc

from marquee_services.errors import (
    AdminRequired,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
)
from marquee_services.server.identity.rate_limits import RateLimits
from marquee_services.server.identity.reloading import Refreshable

Context = grpc.aio.ServicerContext[Any, Any]

_SUBJECT_ALTERNATIVE_NAME = "x509_subject_alternative_name"


class Scope(StrEnum):
    """A permission of a caller. Each method requires one of them."""

    RECOMMEND = "recommend"
    FEEDBACK = "feedback"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a method.

    Attributes:
        name: The identity, to which the rate limit applies: the subject of a token, or the address
            of the peer.
        scopes: The caller's permissions.
        expires: When the identity expires, in seconds since 1970; None for never.
    """

    name: str
    scopes: frozenset[Scope]
    expires: float | None = None


class TokenVerifier(Refreshable, Protocol):
    """Verifies bearer tokens."""

    async def verify(self, token: str) -> Caller:
        """Returns the caller that a bearer token identifies.

        Raises:
            Unauthenticated: The token is not valid.
        """


_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


def has_scope(scope: Scope) -> bool:
    """Returns whether the current call's caller has a scope."""
    caller = _CALLER.get()
    return caller is not None and scope in caller.scopes


def caller_name() -> str:
    """Returns the identity of the current call's caller; "" if callers are not identified."""
    caller = _CALLER.get()
    return "" if caller is None else caller.name


class AccessControl:
    """Decides which calls a server accepts."""

    def __init__(
        self,
        allowed_clients: frozenset[str],
        verifiers: Iterable[TokenVerifier] = (),
        anonymous: Iterable[Scope] = Scope,
        scopes: Mapping[str, Scope] | None = None,
        rate_limits: RateLimits | None = None,
    ) -> None:
        """Creates the access control of a server.

        Args:
            allowed_clients: DNS names and URIs, one of which a client's certificate must carry;
                empty admits every client.
            verifiers: Verify tokens; the first one that accepts a token identifies the caller.
            anonymous: The scopes of callers without a valid token. If empty, calls without a valid
                token are refused.
            scopes: The scope that a method requires, by full name; other methods require
                `RECOMMEND`.
            rate_limits: Limits the rate of calls per identity; None for no limits.
        """
        self._allowed_clients = allowed_clients
        self._verifiers = tuple(verifiers)
        self._anonymous = frozenset(anonymous)
        self._scopes = scopes or {}
        self._rate_limits = rate_limits

    @property
    def checks_callers(self) -> bool:
        """Whether callers need a token, or a certificate of an allowed identity."""
        return bool(self._allowed_clients) or not self._anonymous

    async def admit(self, method: str, context: Context) -> None:
        """Checks a call, and stores its caller for `has_scope` and `caller_name`.

        Args:
            method: The full name of the method, `/package.Service/Method`.
            context: The call.

        Raises:
            Unauthenticated: The call needs a valid token.
            PermissionDenied: The client's certificate or the token does not allow the call.
            AdminRequired: The method requires an administrator's token.
            RateLimited: The caller has exceeded its rate limit.
        """
        if self._allowed_clients:
            self._check_certificate(context)
        caller = await self._identify(context)
        needed = self._scopes.get(method, Scope.RECOMMEND)
        if needed not in caller.scopes:
            raise (
                AdminRequired
                if needed is Scope.ADMIN
                else PermissionDenied(f"the token lacks the scope {needed.value!r}", needed.value)
            )
        if self._rate_limits is not None:
            wait = self._rate_limits.wait(caller.name)
            if wait > 0:
                raise RateLimited(wait)
        _CALLER.set(caller)

    def _check_certificate(self, context: Context) -> None:
        names = cast(Any, context.auth_context()).get(_SUBJECT_ALTERNATIVE_NAME, ())
        if not any(name.decode("utf-8", "replace") in self._allowed_clients for name in names):
            raise PermissionDenied("the client's certificate does not carry an allowed identity")

    async def _identify(self, context: Context) -> Caller:
        if not self._verifiers and self._anonymous:
            return Caller(_host(context.peer()), self._anonymous)
        token = _bearer_token(context)
        refused = Unauthenticated("the call has no bearer token")
        if token is not None:
            for verifier in self._verifiers:
                try:
                    return await verifier.verify(token)
                except Unauthenticated as error:
                    refused = error
        if not self._anonymous:
            raise refused
        return Caller(_host(context.peer()), self._anonymous)


def _bearer_token(context: Context) -> str | None:
    """Returns the token in the metadata `authorization`; None if there is none."""
    # The metadata are pairs, although the type stubs say otherwise.
    for key, value in cast(Any, context.invocation_metadata()) or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                return token.strip()
    return None


def _host(peer: str | None) -> str:
    """Returns the address of a peer without its port."""
    address = peer or "unknown"
    return address.rpartition(":")[0] if address.startswith(("ipv4:", "ipv6:")) else address
