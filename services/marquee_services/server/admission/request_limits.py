"""Limits on the elements of a request, checked on its bytes before they are parsed.

A request with two million empty subjects has 4 MB, but takes 0.1 s and 70 MB of memory to parse,
and seconds to iterate over. The elements of a large request are therefore counted in its serialised
form, and counting stops at the first element beyond a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from marquee_services.errors import FieldViolation, InvalidFields

# A request of up to this size cannot hold enough elements to matter.
_SMALL_BYTES = 16 * 1024
# After this many fields, which take about 0.1 ms to read, the check yields to other tasks. A call
# takes about a dozen turns of the event loop.
_SLICE = 200
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# After a refused request, the next check begins after this multiple of the time that the refused
# one took, at most after the longest pause.
_PAUSE_PER_CHECK, _MAX_PAUSE_S = 4.0, 0.05
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


@dataclass(frozen=True)
class ElementLimits:
    """The limits on the elements of a field.

    Attributes:
        name: The name of the field.
        most: The most elements; None for a field that is not repeated.
        total: The most elements with this name in the whole request; None for no limit.
        fields: The limits on the fields of its elements, by field number.
    """

    name: str
    most: int | None = None
    total: int | None = None
    fields: Mapping[int, ElementLimits] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestLimits:
    """The limits on the requests of a method.

    Attributes:
        max_bytes: The largest request in bytes; None for the server's limit.
        max_fields: The most fields and elements in total, including unknown ones.
        fields: The limits on fields, by field number.
    """

    max_bytes: int | None = None
    max_fields: int = 1_000_000
    fields: Mapping[int, ElementLimits] = field(default_factory=dict)

    def passes(self, data: bytes) -> bool:
        """Returns whether a serialised request is too small to need a check."""
        return len(data) <= _SMALL_BYTES and (self.max_bytes is None or len(data) <= self.max_bytes)

    async def check(self, data: bytes) -> None:
        """Checks a serialised request.

        Bytes that are not a valid message pass this check; parsing rejects them.

        Raises:
            InvalidFields: The request is too large, or a field has too many elements.
        """
        if self.max_bytes is not None and len(data) > self.max_bytes:
            reason = f"the request has {len(data)} bytes, but at most {self.max_bytes} are allowed"
            raise InvalidFields([FieldViolation("", reason)])
        if self.fields and len(data) > _SMALL_BYTES:
            count = _Count(data, self.max_fields)
            for _ in count.check(0, len(data), self.fields, "", {}):
                await asyncio.sleep(0)


class RequestChecks:
    """Checks the large requests of a server one after another.

    A check yields to other calls after a short turn; many checks at the same time would take as
    many turns in a row. A caller whose request is refused can send the next one at once, so there
    is a pause after each refusal. Otherwise a few such callers would keep the event loop busy.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next_at = 0.0

    async def check(self, limits: RequestLimits, data: bytes) -> None:
        """Checks a serialised request as soon as it is its turn.

        Raises:
            InvalidFields: The request is too large, or a field has too many elements.
        """
        loop = asyncio.get_running_loop()
        async with self._lock:
            await asyncio.sleep(self._next_at - loop.time())
            start = loop.time()
            try:
                await limits.check(data)
            except InvalidFields:
                end = loop.time()
                self._next_at = end + min(_MAX_PAUSE_S, _PAUSE_PER_CHECK * (end - start))
                raise


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
        """Checks a message within the request, and the messages nested in it.

        Args:
            start: The offset of the message's first byte.
            end: The offset after its last byte.
            limits: The limits on its fields, by field number.
            path: The path of the message, for errors; "" for the request.
            counts: The number of elements by path. A field that is not repeated may occur several
                times; parsing merges the occurrences, so they share one count.

        Yields:
            None whenever other tasks should have a turn.

        Raises:
            InvalidFields: There are too many elements.
        """
        data, position = self._data, start
        while position < end:
            self._fields += 1
            if not self._fields % _SLICE:
                if self._fields > self._max_fields:
                    reason = f"the request has more than {self._max_fields} fields and elements"
                    raise InvalidFields([FieldViolation(path, reason)])
                yield
            tag, position = _varint(data, position)
            kind = tag & 7
            if kind == _BYTES:
                size, position = _varint(data, position)
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
                        last = min(position + size, end)
                        yield from self.check(position, last, found.fields, inner, parts)
                position += size
            elif kind == _VARINT:
                _, position = _varint(data, position)
            elif kind in _FIXED_SIZES:
                position += _FIXED_SIZES[kind]
            else:
                return  # A group, or not a valid message.

    def _count(self, limits: ElementLimits, own: str, path: str, counts: dict[str, int]) -> int:
        """Counts an element, and returns the number of elements of its field."""
        if limits.most is None:
            return 0
        count = counts[own] = counts.get(own, 0) + 1
        if count > limits.most:
            reason = f"must have at most {limits.most} elements"
            raise InvalidFields([FieldViolation(own, reason)])
        if limits.total is not None:
            total = self._totals[limits.name] = self._totals.get(limits.name, 0) + 1
            if total > limits.total:
                reason = f"more than {limits.total} {limits.name} in total"
                raise InvalidFields([FieldViolation(path, reason)])
        return count


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Reads a varint; returns it and the offset after it, which is the end if it is truncated."""
    if position < len(data) and data[position] < 0x80:  # Most varints have one byte.
        return data[position], position + 1
    number = shift = 0
    for byte in data[position : position + 10]:
        number |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return number, position
        shift += 7
    return 0, len(data)
