"""What a request may consist of, judged by its bytes before a message is made of them.

A message of two million empty subjects has 4 MB, but takes 0.1 s to parse, 70 MB of memory, and
seconds to walk. So the elements of a large request are counted on the wire, and counting stops at
the first one too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from marquee_services.errors import FieldViolation, InvalidFields

# A smaller request has too few elements to cost anything.
_SMALL_BYTES = 16 * 1024
# After this many fields other calls get their turn; reading them takes about a tenth of a
# millisecond, and a call takes a dozen turns.
_SLICE = 200
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


@dataclass(frozen=True)
class ElementLimits:
    """How many elements a field may have.

    Attributes:
        name: The name of the field.
        most: The most elements; None for a field that is not repeated.
        total: The most elements in the whole request, whatever they are part of; None for no limit.
        fields: The limits of fields of its elements, by field number.
    """

    name: str
    most: int | None = None
    total: int | None = None
    fields: Mapping[int, ElementLimits] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestLimits:
    """What a request of one method may consist of.

    Attributes:
        max_bytes: The largest request in bytes; None for the server's limit.
        max_fields: The most fields and elements in all, among them unknown ones.
        fields: The limits of fields, by field number.
    """

    max_bytes: int | None = None
    max_fields: int = 1_000_000
    fields: Mapping[int, ElementLimits] = field(default_factory=dict)

    def passes(self, data: bytes) -> bool:
        """Whether a serialised request is so small that it needs no check."""
        return len(data) <= _SMALL_BYTES and (self.max_bytes is None or len(data) <= self.max_bytes)

    async def check(self, data: bytes) -> None:
        """Checks a serialised request.

        Bytes that are no message pass: parsing them fails.

        Raises:
            InvalidFields: The request is larger than the method takes.
        """
        if self.max_bytes is not None and len(data) > self.max_bytes:
            reason = f"the request has {len(data)} bytes, more than {self.max_bytes}"
            raise InvalidFields([FieldViolation("", reason)])
        if self.fields and len(data) > _SMALL_BYTES:
            count = _Count(data, self.max_fields)
            for _ in count.check(0, len(data), self.fields, "", {}):
                await asyncio.sleep(0)


class _Count:
    """Counts the fields and elements of a serialised message."""

    def __init__(self, data: bytes, max_fields: int) -> None:
        self._data = data
        self._max_fields = max_fields
        self._fields = 0
        self._totals: dict[str, int] = {}

    def check(
        self,
        start: int,
        end: int,
        limits: Mapping[int, ElementLimits],
        path: str,
        counts: dict[str, int],
    ) -> Iterator[None]:
        """Checks one message within the request, and those within it.

        Args:
            start: Where the message begins.
            end: Where it ends.
            limits: The limits of its fields, by field number.
            path: The path of the message, for errors; "" for the request.
            counts: The number of elements by path. A field that is not repeated may occur several
                times, and parsing joins its parts: they share their counts.

        Yields:
            None when other tasks should get their turn.

        Raises:
            InvalidFields: There are too many elements.
        """
        data, place = self._data, start
        while place < end:
            self._fields += 1
            if not self._fields % _SLICE:
                if self._fields > self._max_fields:
                    reason = f"the request has more than {self._max_fields} fields and elements"
                    raise InvalidFields([FieldViolation(path, reason)])
                yield
            tag, place = _varint(data, place)
            kind = tag & 7
            if kind == _BYTES:
                size, place = _varint(data, place)
                found = limits.get(tag >> 3)
                if found is not None:
                    own = f"{path}.{found.name}" if path else found.name
                    count = self._count(found, own, path, counts)
                    if found.fields:
                        inner, parts = (
                            (own, counts)
                            if found.most is None
                            else (
                                f"{own}[{count - 1}]",
                                {},
                            )
                        )
                        last = min(place + size, end)
                        yield from self.check(place, last, found.fields, inner, parts)
                place += size
            elif kind == _VARINT:
                _, place = _varint(data, place)
            elif kind in _FIXED_SIZES:
                place += _FIXED_SIZES[kind]
            else:
                return  # A group, or no message at all.

    def _count(self, limits: ElementLimits, own: str, path: str, counts: dict[str, int]) -> int:
        """Counts an element; returns how many there are of its field."""
        if limits.most is None:
            return 0
        count = counts[own] = counts.get(own, 0) + 1
        if count > limits.most:
            reason = f"must have at most {limits.most} elements"
            raise InvalidFields([FieldViolation(own, reason)])
        if limits.total is not None:
            total = self._totals[limits.name] = self._totals.get(limits.name, 0) + 1
            if total > limits.total:
                reason = f"more than {limits.total} {limits.name} in all"
                raise InvalidFields([FieldViolation(path, reason)])
        return count


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Reads a number; returns it and where it ends. A truncated one ends behind the data."""
    if place < len(data) and data[place] < 0x80:  # Most numbers have one byte.
        return data[place], place + 1
    number = shift = 0
    for byte in data[place : place + 10]:
        number |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return number, place
        shift += 7
    return 0, len(data)
