"""Checks argument types. Unlike the errors of protobuf and gRPC, the errors name the argument.

Only values that cannot be sent in a request are rejected here. The server checks the constraints of
the API.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import TypeVar

from marquee._options import Metadata

# 31 years. gRPC counts nanoseconds in 64 bits, so a deadline of several hundred years overflows and
# expires immediately.
MAX_TIMEOUT = 1e9

_KEY = re.compile(r"[0-9a-z_.-]+")
_T = TypeVar("_T")


def text(name: str, value: str) -> str:
    """Checks that a value is a string, and returns it.

    Raises:
        TypeError: The value is not a string, but for example an integer.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {_described(value)}")
    return value


def strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Checks that values are strings, and returns them as a tuple.

    Args:
        name: The name of the argument, for the error message.
        values: The strings.

    Raises:
        TypeError: `values` is a single string, which would be split into characters, or contains a
            value that is not a string.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} must be an iterable of strings, not a single string")
    found = tuple(_iterable(name, values))
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} must contain strings, not {_described(value)}")
    return found


def stars_by_item(name: str, ratings: Mapping[str, float] | None) -> dict[str, float]:
    """Checks ratings by item id, and returns them as a dictionary.

    Raises:
        TypeError: An item id is not a string, or a rating is not a number.
    """
    found = dict({} if ratings is None else ratings)
    for item_id, stars in found.items():
        if not isinstance(item_id, str):
            raise TypeError(f"{name}: item ids must be strings, not {_described(item_id)}")
        if isinstance(stars, bool) or not isinstance(stars, Real):
            raise TypeError(
                f"{name}: the rating of item {item_id!r} must be a number, not {_described(stars)}"
            )
    return found


def integer(name: str, value: int) -> int:
    """Checks that a value is an integer, and returns it.

    Raises:
        TypeError: The value is not an integer, but for example a float or a Boolean.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {_described(value)}")
    return int(value)


def number(name: str, value: float) -> float:
    """Checks that a value is a number, and returns it as a float.

    Raises:
        TypeError: The value is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {_described(value)}")
    return float(value)


def seconds(name: str, value: float) -> float:
    """Checks a timeout in seconds, and returns it.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not positive, not finite, or too large for gRPC.
    """
    found = number(name, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, not {value}")
    if found > MAX_TIMEOUT:
        raise ValueError(f"{name} must be at most {MAX_TIMEOUT:.0e} seconds, not {value}")
    return found


def metadata_pairs(metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...]:
    """Checks request metadata, and returns it as pairs of key and value.

    Raises:
        TypeError: A key or value is neither a string nor, for a key that ends in `-bin`, bytes.
        ValueError: A key or value has characters that gRPC does not allow, or a key is reserved.
            The message omits the value, which may be a secret.
    """
    if metadata is None:
        return ()
    given = metadata.items() if isinstance(metadata, Mapping) else metadata
    pairs = []
    for key, value in given:
        if not isinstance(key, str):
            raise TypeError(f"metadata: keys must be strings, not {_described(key)}")
        if not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise ValueError(
                f"metadata: the key {key!r} must consist of lower-case letters, digits, '_', '-' "
                "and '.', and must not begin with 'grpc-'"
            )
        if not isinstance(value, bytes if key.endswith("-bin") else str):
            expected = "bytes" if key.endswith("-bin") else "a string"
            raise TypeError(
                f"metadata: the value of {key!r} must be {expected}, not {_type_name(value)}"
            )
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise ValueError(f"metadata: the value of {key!r} must be printable ASCII characters")
        pairs.append((key, value))
    return tuple(pairs)


def _iterable(name: str, values: Iterable[_T]) -> Iterable[_T]:
    try:
        return iter(values)
    except TypeError:
        raise TypeError(
            f"{name} must be an iterable of strings, not {_described(values)}"
        ) from None


def _described(value: object) -> str:
    """Describes a value of the wrong type, for an error message."""
    return f"{_type_name(value)} ({value!r})" if isinstance(value, Real) else _type_name(value)


def _type_name(value: object) -> str:
    return type(value).__name__
