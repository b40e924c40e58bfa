"""Writes messages in protobuf's wire format from parts that were serialized before.

A message's bytes are those of its fields in a row, whatever their order, so an answer whose items
are bytes already needs no message. See https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from functools import lru_cache

from google.protobuf.message import Message

_VARINT, _LENGTH_DELIMITED = 0, 2
# Of seven bits a byte, the highest bit says that another byte follows.
_MORE, _BITS = 0x80, 7


@lru_cache(maxsize=4096)
def varint(value: int) -> bytes:
    """A number that is not negative, the lowest seven bits first."""
    found = bytearray()
    while value >= _MORE:
        found.append(value & (_MORE - 1) | _MORE)
        value >>= _BITS
    found.append(value)
    return bytes(found)


def number_tag(message: type[Message], field: str) -> bytes:
    """What an integer field of a message begins with."""
    return _tag(message, field, _VARINT)


def content_tag(message: type[Message], field: str) -> bytes:
    """What a field of text or of a message begins with; its length and its bytes follow."""
    return _tag(message, field, _LENGTH_DELIMITED)


def _tag(message: type[Message], field: str, wire_type: int) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | wire_type)
