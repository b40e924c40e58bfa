"""Checks of argument types. An error names the argument, which one of protobuf or gRPC would not.

The server checks the constraints of the API; here only values are rejected that have no meaning in
a request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import TypeVar

from marquee._options import Metadata

# gRPC counts nanoseconds in 64 bits, so deadlines of a few hundred years have already passed for
# it. This is 31 years.
MAX_TIMEOUT = 1e9

_KEY = re.compile(r"[0-9a-z_.-]+")
_T = TypeVar("_T")


def text(name: str, value: str) -> str:
    """Returns a string.

    Raises:
        TypeError: The value is no string, for example an integer id.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {_described(value)}")
    return value


def strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Returns strings as a tuple.

    Args:
        name: The name of the argument, for the error message.
        values: The strings.

    Raises:
        TypeError: `values` is a single string, which would be split into its letters, or not all
            values are strings.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} takes several strings, not one")
    found = tuple(_iterable(name, values))
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} takes strings, not {_described(value)}")
    return found


def stars_by_item(name: str, ratings: Mapping[str, float] | None) -> dict[str, float]:
    """Returns ratings by item id.

    Raises:
        TypeError: An item id is no string, or a rating is no number.
    """
    found = dict({} if ratings is None else ratings)
    for item_id, stars in found.items():
        if not isinstance(item_id, str):
            raise TypeError(f"{name}: an item id is a string, not {_described(item_id)}")
        if isinstance(stars, bool) or not isinstance(stars, Real):
            raise TypeError(
                f"{name}: the rating of item {item_id!r} is {_described(stars)}, no number"
            )
    return found


def integer(name: str, value: int) -> int:
    """Returns a whole number.

    Raises:
        TypeError: The value is none; a floating-point number is none either.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is a whole number, not {_described(value)}")
    return int(value)


def number(name: str, value: float) -> float:
    """Returns a number.

    Raises:
        TypeError: The value is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is a number, not {_described(value)}")
    return float(value)


def seconds(name: str, value: float) -> float:
    """Returns a timeout in seconds.

    Raises:
        TypeError: The value is no number.
        ValueError: The value is not positive, not finite, or too large for gRPC.
    """
    found = number(name, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, not {value}")
    if found > MAX_TIMEOUT:
        raise ValueError(f"{name} must be at most {MAX_TIMEOUT:.0e} seconds, not {value}")
    return found


def metadata_pairs(metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...]:
    """Returns request metadata as pairs of key and value.

    Raises:
        TypeError: A key or value is neither a string nor, for a key that ends in `-bin`, bytes.
        ValueError: A key or value has characters that gRPC does not allow, or a key is reserved.
            The message does not contain the value, which may be a secret.
    """
    if metadata is None:
        return ()
    given = metadata.items() if isinstance(metadata, Mapping) else metadata
    pairs = []
    for key, value in given:
        if not isinstance(key, str):
            raise TypeError(f"metadata: a key is a string, not {_described(key)}")
        if not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise ValueError(
                f"metadata: the key {key!r} must be lower-case letters, digits, '_', '-' and '.', "
                "and not begin with 'grpc-'"
            )
        if not isinstance(value, bytes if key.endswith("-bin") else str):
            expected = "bytes" if key.endswith("-bin") else "a string"
            raise TypeError(
                f"metadata: the value of {key!r} is {expected}, not {_type_name(value)}"
            )
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise ValueError(f"metadata: the value of {key!r} must be printable ASCII characters")
        pairs.append((key, value))
    return tuple(pairs)


def _iterable(name: str, values: Iterable[_T]) -> Iterable[_T]:
    try:
        return iter(values)
    except TypeError:
        raise TypeError(f"{name} takes several strings, not {_described(values)}") from None


def _described(value: object) -> str:
    """Returns a value of a wrong type and its type, for an error message."""
    return f"{_type_name(value)} ({value!r})" if isinstance(value, Real) else _type_name(value)


def _type_name(value: object) -> str:
    return type(value).__name__
