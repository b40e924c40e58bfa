"""Assembles protobuf messages from fields that are already serialised.

A serialised message is the concatenation of its serialised fields, in any order. A cached answer
can therefore be completed with a new id without parsing it. The encoding is described at
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NewType

from google.protobuf.message import Message

SerializedResponse = NewType("SerializedResponse", bytes)
"""The bytes of a response message, which a servicer may return in place of the message.

`marquee_services.server.interceptor` sends such bytes unchanged, and serialises messages.
"""

# Wire types.
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
# A varint stores seven bits per byte; the highest bit is set if another byte follows.
_CONTINUATION_BIT, _PAYLOAD_BITS = 0x80, 7


@lru_cache(maxsize=4096)
def varint(value: int) -> bytes:
    """Encodes a non-negative integer as a varint."""
    encoded = bytearray()
    while value >= _CONTINUATION_BIT:
        encoded.append(value & (_CONTINUATION_BIT - 1) | _CONTINUATION_BIT)
        value >>= _PAYLOAD_BITS
    encoded.append(value)
    return bytes(encoded)


def varint_tag(message: type[Message], field: str) -> bytes:
    """Returns the tag of an integer field; the value follows as a varint."""
    return _tag(message, field, _VARINT)


def length_delimited_tag(message: type[Message], field: str) -> bytes:
    """Returns the tag of a string or message field; its length as a varint and its bytes follow."""
    return _tag(message, field, _LENGTH_DELIMITED)


def double_tag(message: type[Message], field: str) -> bytes:
    """Returns the tag of a double field; the value follows in eight bytes, little-endian."""
    return _tag(message, field, _FIXED64)


def float_tag(message: type[Message], field: str) -> bytes:
    """Returns the tag of a float field; the value follows in four bytes, little-endian."""
    return _tag(message, field, _FIXED32)


def _tag(message: type[Message], field: str, wire_type: int) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | wire_type)
