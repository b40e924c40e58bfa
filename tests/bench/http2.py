"""The parts of HTTP/2 (RFC 9113) and of gRPC framing that the load generator needs."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hpack import Decoder, HPACKError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8, 0x9),
)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 0x1, 0x2, 0x4, 0x5

FRAME_HEADER_BYTES = 9
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_BYTES = 16_384
GRPC_PREFIX_BYTES = 5

# Entries of HPACK's static table (RFC 7541, appendix A): the whole fields `:method: POST` and
# `:scheme: http`, and the names `:authority` and `:path`.
_METHOD_POST, _SCHEME_HTTP = 0x83, 0x86
_AUTHORITY, _PATH = 0x01, 0x04
_LITERAL_NEW_NAME = 0x00
_GRPC_STATUS = b"\x0bgrpc-status"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encodes a frame."""
    size = len(payload)
    return struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    """Encodes a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in values.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    """Decodes the payload of a SETTINGS frame."""
    return dict(struct.iter_unpack(">HI", payload))


def window_update(stream: int, size: int) -> bytes:
    """Encodes a WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


def request_headers(authority: str, path: str, timeout_s: int) -> bytes:
    """Encodes the headers of a gRPC call without dynamic indexing, so that the block is reusable.

    Args:
        authority: The server as HOST:PORT.
        path: The method as /package.Service/Method.
        timeout_s: The deadline, in seconds from the start of the call.
    """
    block = bytes([_METHOD_POST, _SCHEME_HTTP])
    block += bytes([_AUTHORITY]) + _text(authority) + bytes([_PATH]) + _text(path)
    for name, value in (
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", f"{timeout_s}S"),
    ):
        block += bytes([_LITERAL_NEW_NAME]) + _text(name) + _text(value)
    return block


def grpc_message(message: bytes) -> bytes:
    """Adds the gRPC prefix (compression flag and length) to a message."""
    return struct.pack(">BI", 0, len(message)) + message


def grpc_messages(body: bytes) -> Iterator[bytes]:
    """Splits a response's body into its messages.

    Raises:
        ValueError: The body ends within a message, or a message is compressed.
    """
    place = 0
    while place < len(body):
        if len(body) < place + GRPC_PREFIX_BYTES:
            raise ValueError("the body ends within the prefix of a message")
        compressed, size = struct.unpack_from(">BI", body, place)
        place += GRPC_PREFIX_BYTES
        if compressed:
            raise ValueError("a message is compressed, although no compression was requested")
        if len(body) < place + size:
            raise ValueError("the body ends within a message")
        yield body[place : place + size]
        place += size


class StatusReader:
    """Reads `grpc-status` from trailers.

    The client announces a dynamic table of size 0 (SETTINGS_HEADER_TABLE_SIZE), so a block does not
    depend on earlier blocks; a reference to the dynamic table is an error. gRPC then writes the
    name `grpc-status` literally, and this class finds it without decoding. Decoding costs more than
    the rest of a call, so only other blocks are decoded, each distinct one once.
    """

    def __init__(self) -> None:
        self._decoded: dict[bytes, str] = {}

    def status(self, block: bytes) -> str:
        """Returns the gRPC status number as text, or an error message if the block has none."""
        place = block.find(_GRPC_STATUS)
        if place >= 0:
            value = place + len(_GRPC_STATUS) + 1
            # The byte before the value is its length, without the flag for Huffman coding.
            if value <= len(block) and (size := block[value - 1]) in (1, 2):
                return block[value : value + size].decode("ascii", "replace")
        found = self._decoded.get(block)
        if found is None:
            found = self._decoded[block] = _status(block)
        return found


def _status(block: bytes) -> str:
    try:
        headers = dict(Decoder().decode(block, raw=True))
    except HPACKError as error:
        return f"HPACK {type(error).__name__}"
    if b"grpc-status" in headers:
        return headers[b"grpc-status"].decode()
    return f"HTTP {headers.get(b':status', b'?').decode()} without grpc-status"


def _text(text: str) -> bytes:
    """Encodes an HPACK string literal of less than 127 bytes, without Huffman coding."""
    encoded = text.encode()
    if len(encoded) >= 127:
        raise ValueError(f"the header value {text!r} has more than 126 bytes")
    return bytes([len(encoded)]) + encoded
