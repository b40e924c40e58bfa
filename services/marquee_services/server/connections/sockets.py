"""Closes or mutes individual TCP connections of this process, for which gRPC has no API."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

_OPEN_FILES = "/proc/self/fd"
_SO_ATTACH_FILTER = 26
# A classic BPF program of one instruction: return 0, which keeps no byte of the packet.
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)


def end(peers: Mapping[str, bool]) -> None:
    """Ends the connections with the given peers.

    Args:
        peers: The peers as gRPC names them, such as `ipv4:127.0.0.1:5000` or
            `ipv6:%5B::1%5D:5000`, each with whether to mute its connection. The packets that
            arrive on a muted connection are dropped, and gRPC's keepalive closes it later; other
            connections are closed immediately.
    """
    by_address = {_address_of(peer): mute for peer, mute in peers.items()}
    for connection in _tcp_sockets():
        with connection, suppress(OSError):
            host, port = connection.getpeername()[:2]
            mute = by_address.get((_plain(host), port))
            if mute is None:
                continue
            if mute:
                _drop_input(connection)
            else:
                connection.shutdown(socket.SHUT_RDWR)


def _address_of(peer: str) -> tuple[str, int] | None:
    """Returns the address and port of a peer; None if it has none, such as a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """Returns the canonical form of an address: without a zone, and IPv4-mapped IPv6 as IPv4."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _tcp_sockets() -> Iterator[socket.socket]:
    """Yields duplicates of the open TCP sockets, which gRPC cannot close in the meantime."""
    for name in os.listdir(_OPEN_FILES):
        with suppress(OSError):
            if not os.readlink(f"{_OPEN_FILES}/{name}").startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
            if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
                yield copy
            else:
                copy.close()


def _drop_input(connection: socket.socket) -> None:
    """Makes the kernel drop all incoming packets (Linux, socket(7)); elsewhere, shuts it down."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    filter_ = struct.pack("HL", 1, ctypes.addressof(program))
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
    except OSError:
        connection.shutdown(socket.SHUT_RDWR)
