"""Encodes arrays for the bytes fields of `ScoringService`: little-endian, without padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Float32, Int32
from marquee_services.errors import FieldViolation, InvalidFields

MAX_RETRIEVED = 10_000
"""Largest `count` of RetrieveItems: items of each model for each user."""

_INT32 = np.dtype("<i4")
_FLOAT32 = np.dtype("<f4")


def pack_ints(values: NDArray[Any]) -> bytes:
    """Encodes integers as int32."""
    return values.astype(_INT32, copy=False).tobytes()


def pack_floats(values: NDArray[Any]) -> bytes:
    """Encodes numbers as float32."""
    return values.astype(_FLOAT32, copy=False).tobytes()


def pack_bits(values: Bool) -> bytes:
    """Encodes booleans as one bit each, the least significant bit of a byte first."""
    return np.packbits(values, bitorder="little").tobytes()


def unpack_ints(field: str, data: bytes) -> Int32:
    """Decodes an int32 array; the array is read-only.

    Args:
        field: Path of the field, for the error.
        data: The bytes.

    Raises:
        InvalidFields: The number of bytes is not a multiple of 4.
    """
    return _unpack(field, data, _INT32)


def unpack_floats(field: str, data: bytes) -> Float32:
    """Decodes a float32 array; the array is read-only.

    Args:
        field: Path of the field, for the error.
        data: The bytes.

    Raises:
        InvalidFields: The number of bytes is not a multiple of 4.
    """
    return _unpack(field, data, _FLOAT32)


def unpack_bits(field: str, data: bytes, count: int) -> Bool:
    """Decodes an array of booleans.

    Args:
        field: Path of the field, for the error.
        data: The bytes.
        count: Number of booleans.

    Raises:
        InvalidFields: The number of bytes does not match `count`.
    """
    if len(data) != (count + 7) // 8:
        reason = f"must have {(count + 7) // 8} bytes for {count} bits, not {len(data)}"
        raise InvalidFields([FieldViolation(field, reason)])
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count, bitorder="little")
    return bits.view(np.bool_)


def _unpack(field: str, data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(data) % dtype.itemsize:
        reason = (
            f"must have {dtype.itemsize} bytes per {dtype.name} value, but has {len(data)} bytes"
        )
        raise InvalidFields([FieldViolation(field, reason)])
    return np.frombuffer(data, dtype=dtype)
