"""Keeps file descriptors in reserve: connections get those that the server itself does not need.

A server without a free descriptor can neither read its store nor accept a health check. So the
connections of a listener are limited to fewer than the process may have; gRPC closes further ones
at once.
"""

from __future__ import annotations

import resource

import structlog

_log = structlog.get_logger()

RESERVE = 512
"""Descriptors for files of releases, the store, backends, databases, health checks and metrics."""

_MOST_RESERVED_SHARE = 0.5


def limit_connections(wanted: int) -> int:
    """How many connections a server may have; raises the limit of descriptors as far as needed.

    Where the hard limit leaves too few, there are fewer connections, and a log entry says so.

    Args:
        wanted: The connections that the settings allow.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        raised = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    allowed = connections_within(soft if soft != unlimited else needed, wanted)
    if allowed < wanted:
        _log.warning("fewer_connections", wanted=wanted, allowed=allowed, descriptors=soft)
    return allowed


def connections_within(descriptors: int, wanted: int) -> int:
    """How many connections so many descriptors allow, of those that are wanted; at least 1."""
    reserved = min(RESERVE, int(_MOST_RESERVED_SHARE * descriptors))
    return max(1, min(wanted, descriptors - reserved))
