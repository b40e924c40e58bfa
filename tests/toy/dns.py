"""A name server for one name, whose addresses a test can change."""

from __future__ import annotations

import asyncio
import socket
import struct

_ADDRESS_TYPE, _INTERNET = 1, 1


class NameServer(asyncio.DatagramProtocol):
    """Answers every query for IPv4 addresses with the same addresses (RFC 1035).

    Attributes:
        addresses: The IPv4 addresses to answer with.
        port: The UDP port of the server on 127.0.0.1.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.port = 0

    async def start(self) -> asyncio.DatagramTransport:
        """Start the server; the caller closes the transport."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.port = transport.get_extra_info("sockname")[1]
        return transport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Store the transport that answers are sent with."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query; queries for types other than A get an empty answer."""
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        found = self.addresses if kind == _ADDRESS_TYPE else []
        header = data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0)
        # The name points to that of the question, and the TTL is 0 seconds.
        record = struct.pack("!HHHIH", 0xC00C, _ADDRESS_TYPE, _INTERNET, 0, 4)
        records = (record + socket.inet_aton(address) for address in found)
        self._transport.sendto(header + data[12:end] + b"".join(records), addr)
