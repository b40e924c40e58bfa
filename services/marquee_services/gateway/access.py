"""The tokens that the gateway accepts, and the scopes that its methods require."""

from __future__ import annotations

from marquee.v1 import feedback_service_pb2
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.identity.access import AccessControl, Caller, Scope, TokenVerifier
from marquee_services.server.identity.rate_limits import RateLimits
from marquee_services.server.identity.reloading import Reloader
from marquee_services.server.identity.static_tokens import StaticTokens

_FEEDBACK = feedback_service_pb2.DESCRIPTOR.services_by_name["FeedbackService"].full_name
# All other methods require the scope `recommend`.
_SCOPES = {
    f"/{_FEEDBACK}/RecordFeedback": Scope.FEEDBACK,
    f"/{_FEEDBACK}/DeleteFeedback": Scope.FEEDBACK,
    f"/{_FEEDBACK}/ListFeedback": Scope.ADMIN,
    f"/{_FEEDBACK}/ForgetUser": Scope.ADMIN,
}


def access_control(settings: GatewaySettings, reloader: Reloader) -> AccessControl | None:
    """Creates the gateway's access control; returns None if callers are not checked.

    Args:
        settings: The gateway's settings.
        reloader: Reloads tokens and keys when they change.

    Raises:
        OSError: A token or key file cannot be read or parsed.
    """
    verifiers: list[TokenVerifier] = []
    if settings.admin_token_file:
        holder = Caller("token:admin", frozenset(Scope))
        verifiers.append(StaticTokens(settings.admin_token_file, holder))
    if settings.tokens_file:
        verifiers.append(StaticTokens(settings.tokens_file))
    if settings.jwt_keys:
        # Imported here because it requires PyJWT, and megabytes of memory.
        from marquee_services.server.identity.jwt_tokens import JSONWebTokens

        tokens = JSONWebTokens(settings.jwt_keys, settings.jwt_issuer, settings.jwt_audience)
        verifiers.append(tokens)
    for verifier in verifiers:
        reloader.add(verifier)
    checks = (verifiers, settings.feedback, settings.allowed_clients, settings.rate_limit)
    if not any(checks):
        return None
    return AccessControl(
        settings.allowed_clients,
        verifiers,
        () if settings.checks_tokens else (Scope.RECOMMEND, Scope.FEEDBACK),
        _SCOPES if settings.feedback else {},
        RateLimits(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None,
    )
