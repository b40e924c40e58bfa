"""Finds and ends single TCP connections of this process, which gRPC has no call for."""

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
# A classic BPF program of one instruction: return 0, "keep no byte of the packet".
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)


def end(peers: Mapping[str, bool]) -> None:
    """Ends the connections with peers.

    Args:
        peers: The peers as gRPC names them, such as `ipv4:127.0.0.1:5000` or
            `ipv6:%5B::1%5D:5000`, each with whether to end its connection silently: whatever
            arrives is then dropped without a word, and the rest left to gRPC's keepalive, in place
            of closing the connection.
    """
    wanted = {_address_of(peer): silently for peer, silently in peers.items()}
    for connection in _tcp_sockets():
        with connection, suppress(OSError):
            host, port = connection.getpeername()[:2]
            silently = wanted.get((_plain(host), port))
            if silently is None:
                continue
            if silently:
                _drop_input(connection)
            else:
                connection.shutdown(socket.SHUT_RDWR)


def _address_of(peer: str) -> tuple[str, int] | None:
    """The address and port of a peer; None for one that has none, such as a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """An address in one form: without a zone, and IPv4 in IPv6 as IPv4."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _tcp_sockets() -> Iterator[socket.socket]:
    """Duplicates of the open TCP sockets, so that none can be closed and replaced meanwhile."""
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
    """Lets the kernel drop all packets that arrive (Linux, socket(7)); closes it elsewhere."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    filter_ = struct.pack("HL", 1, ctypes.addressof(program))
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
    except OSError:
        connection.shutdown(socket.SHUT_RDWR)
