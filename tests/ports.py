"""Finds ports for servers that are started by their port."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Returns a TCP port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
