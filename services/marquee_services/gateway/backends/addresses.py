"""Resolves a gRPC target to the addresses of the servers behind it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from marquee_services.server.addresses import (
    ADDRESS_LIST_SCHEMES,
    SINGLE_SERVER_SCHEME,
    parse_target,
)


@dataclass(frozen=True)
class Address:
    """The address of one server.

    Attributes:
        target: The target to dial, in gRPC's syntax.
        authority: The `host:port` that calls send as their authority, and that the server's
            certificate must match; "" to use the one that gRPC derives from the target.
    """

    target: str
    authority: str = ""


async def resolve(target: str) -> frozenset[Address]:
    """Resolves a target to the servers behind it.

    `host:port` and `dns:///host:port` give one server for each address of the host; `ipv4:` and
    `ipv6:` give one for each address in the list. Any other target counts as one server.

    Raises:
        OSError: The host name cannot be resolved.
        ValueError: The target does not have the form `host:port`.
    """
    for scheme in ADDRESS_LIST_SCHEMES:
        if target.startswith(scheme):
            addresses = target.removeprefix(scheme).split(",")
            return frozenset(Address(scheme + address) for address in addresses)
    if SINGLE_SERVER_SCHEME.match(target):
        return frozenset((Address(target),))
    authority, host, port = parse_target(target)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return frozenset(
        Address(
            f"ipv6:[{address[0]}]:{port}"
            if family == socket.AF_INET6
            else f"ipv4:{address[0]}:{port}",
            authority,
        )
        for family, _, _, _, address in found
    )
