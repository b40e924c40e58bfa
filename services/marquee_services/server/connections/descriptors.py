"""Limits connections, so that file descriptors remain for the server's other needs.

A server without a free descriptor can neither read its store nor accept a health check. The
connections of a listener are therefore limited to fewer than the process may open; gRPC closes
further ones immediately.
"""

from __future__ import annotations

import resource

import structlog

_log = structlog.get_logger()

RESERVE = 512
"""Descriptors for files of releases, the store, backends, databases, health checks and metrics."""

_MAX_RESERVED_SHARE = 0.5


def limit_connections(requested: int) -> int:
    """Returns how many connections a server may have; raises the descriptor limit if necessary.

    If the hard limit is too low, fewer connections are allowed, and a warning is logged.

    Args:
        requested: The number of connections that the settings allow.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = requested + RESERVE
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        raised = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    allowed = connections_within(soft if soft != unlimited else needed, requested)
    if allowed < requested:
        _log.warning("fewer_connections", wanted=requested, allowed=allowed, descriptors=soft)
    return allowed


def connections_within(descriptors: int, requested: int) -> int:
    """Returns how many of the requested connections the descriptors allow; at least 1."""
    reserved = min(RESERVE, int(_MAX_RESERVED_SHARE * descriptors))
    return max(1, min(requested, descriptors - reserved))
