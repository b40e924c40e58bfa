"""Finds the addresses of the servers behind a gRPC target."""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass

_SCHEME = re.compile(r"(unix|unix-abstract|vsock|xds|passthrough):")
_LISTS = ("ipv4:", "ipv6:")


@dataclass(frozen=True)
class Address:
    """A server's address.

    Attributes:
        target: As gRPC dials it.
        authority: The host and port that calls name and its certificate is for; "" for what the
            target says.
    """

    target: str
    authority: str = ""


async def resolve(target: str) -> frozenset[Address]:
    """The servers behind a target.

    `host:port` and `dns:///host:port` have one for each address of the host, `ipv4:` and `ipv6:`
    one for each that they list. Other targets are one server, as far as anybody here can tell.

    Raises:
        OSError: The host has no address.
        ValueError: The target has no port.
    """
    for scheme in _LISTS:
        if target.startswith(scheme):
            listed = target.removeprefix(scheme).split(",")
            return frozenset(Address(scheme + address) for address in listed)
    if _SCHEME.match(target):
        return frozenset((Address(target),))
    authority = target.rsplit("/", 1)[-1].removeprefix("dns:")
    host, _, port = authority.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise ValueError(f"{target!r} is not host:port")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return frozenset(
        Address(
            f"ipv6:[{place[0]}]:{port}" if family == socket.AF_INET6 else f"ipv4:{place[0]}:{port}",
            authority,
        )
        for family, _, _, _, place in found
    )
