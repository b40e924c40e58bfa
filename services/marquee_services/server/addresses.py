"""Addresses to listen on, and targets to call: `host:port`, or a Unix socket."""

from __future__ import annotations

import os
import re
import socket

SINGLE_SERVER_SCHEME = re.compile(r"(unix|unix-abstract|vsock|xds|passthrough):")
"""The beginning of a gRPC target that stands for one server and is not looked up."""
ADDRESS_LIST_SCHEMES = ("ipv4:", "ipv6:")
"""The beginnings of gRPC targets that list addresses."""

_UNIX, _ABSTRACT = "unix:", "unix-abstract:"
_MAX_PORT = 65_535


def is_unix_socket(address: str) -> bool:
    """Returns whether an address is that of a Unix socket."""
    return address.startswith((_UNIX, _ABSTRACT))


def check_listen(address: str) -> None:
    """Checks the form of an address to listen on.

    gRPC itself would listen on port 443 if the port is missing, and on another port than a number
    that is too large.

    Args:
        address: `host:port`, with an IPv6 address in brackets, or `unix:/path`.

    Raises:
        ValueError: The address does not have this form.
    """
    if is_unix_socket(address):
        if not address.partition(":")[2]:
            raise ValueError(f"{address!r} has no path")
        return
    host, colon, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not is_bracketed):
        raise ValueError(f"{address!r} is not host:port or unix:/path")
    if not (port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT):
        raise ValueError(f"the port of {address!r} is not a number from 0 to {_MAX_PORT}")


def check_target(target: str) -> None:
    """Checks the form of a gRPC target, without looking up its host.

    Raises:
        ValueError: The target does not have the form `host:port`.
    """
    if not target.startswith(ADDRESS_LIST_SCHEMES) and not SINGLE_SERVER_SCHEME.match(target):
        parse_target(target)


def parse_target(target: str) -> tuple[str, str, int]:
    """Returns the authority of a target `host:port` or `dns:///host:port`, its host and its port.

    Raises:
        ValueError: The target does not have this form.
    """
    authority = target.rsplit("/", 1)[-1].removeprefix("dns:")
    host, _, port = authority.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise ValueError(f"{target!r} is not host:port")
    return authority, host, int(port)


def why_unusable(address: str) -> str:
    """Returns why a server cannot listen on an address, by trying to bind a socket to it.

    Args:
        address: The address, which has passed `check_listen`.
    """
    try:
        if is_unix_socket(address):
            _bind_unix(address)
        else:
            _bind_tcp(address)
    except OSError as error:
        return error.strerror or str(error)
    return "unknown cause"


def _bind_unix(address: str) -> None:
    is_abstract = address.startswith(_ABSTRACT)
    # The path follows `unix:` directly, or as in a URL.
    path = address.partition(":")[2].removeprefix("//")
    with socket.socket(socket.AF_UNIX) as tried:
        tried.bind(f"\0{path}" if is_abstract else path)
    if not is_abstract:
        os.unlink(path)


def _bind_tcp(address: str) -> None:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, protocol, _, place in found:
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
