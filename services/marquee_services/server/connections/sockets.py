"""Closes or mutes connections of this process, and listeners, for which gRPC has no API."""

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
    for connection in _stream_sockets(socket.AF_INET, socket.AF_INET6):
        with connection, suppress(OSError):
            host, port = connection.getpeername()[:2]
            mute = by_address.get((_plain(host), port))
            if mute is None:
                continue
            if mute:
                _drop_input(connection)
            else:
                connection.shutdown(socket.SHUT_RDWR)


def end_accepted(port: int) -> None:
    """Ends all connections that this process has accepted on a port.

    Args:
        port: The TCP port of the listeners; 0 for those on Unix sockets. The clients of a Unix
            socket have no addresses, so that gRPC names all of them alike.
    """
    for connection in _bound_to(port):
        with connection, suppress(OSError):
            if not _is_listening(connection):
                connection.shutdown(socket.SHUT_RDWR)


def stop_listening(port: int) -> None:
    """Makes the kernel refuse new connections; existing ones are not affected.

    Args:
        port: The TCP port of the listeners; 0 for those on Unix sockets.
    """
    for listener in _bound_to(port):
        with listener, suppress(OSError):
            if _is_listening(listener):
                listener.shutdown(socket.SHUT_RDWR)


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


def _stream_sockets(*families: socket.AddressFamily) -> Iterator[socket.socket]:
    """Yields duplicates of the open stream sockets, which gRPC cannot close in the meantime."""
    for name in os.listdir(_OPEN_FILES):
        with suppress(OSError):
            if not os.readlink(f"{_OPEN_FILES}/{name}").startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
            if copy.family in families and copy.type == socket.SOCK_STREAM:
                yield copy
            else:
                copy.close()


def _bound_to(port: int) -> Iterator[socket.socket]:
    """Yields the listeners on a port and the connections that they have accepted."""
    families = (socket.AF_INET, socket.AF_INET6) if port else (socket.AF_UNIX,)
    for found in _stream_sockets(*families):
        # A client's end of a connection through a Unix socket has no name.
        name = found.getsockname()
        if (name[1] == port) if port else name:
            yield found
        else:
            found.close()


def _is_listening(found: socket.socket) -> bool:
    return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _drop_input(connection: socket.socket) -> None:
    """Makes the kernel drop all incoming packets (Linux, socket(7)); elsewhere, shuts it down."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    filter_ = struct.pack("HL", 1, ctypes.addressof(program))
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
    except OSError:
        connection.shutdown(socket.SHUT_RDWR)
