"""Arrays in the bytes fields of `ScoringService`: little-endian, without padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Float32, Int32
from marquee_services.errors import FieldViolation, InvalidFields

# Most items of each model that RetrieveItems answers for a user.
MAX_RETRIEVED = 10_000

_INT32 = np.dtype("<i4")
_FLOAT32 = np.dtype("<f4")


def pack_ints(values: NDArray[Any]) -> bytes:
    """Integers as int32 bytes."""
    return values.astype(_INT32, copy=False).tobytes()


def pack_floats(values: NDArray[Any]) -> bytes:
    """Numbers as float32 bytes."""
    return values.astype(_FLOAT32, copy=False).tobytes()


def pack_bits(values: Bool) -> bytes:
    """Booleans, one bit each, least significant bit first."""
    return np.packbits(values, bitorder="little").tobytes()


def unpack_ints(field: str, data: bytes) -> Int32:
    """The int32 array (read-only) in a field.

    Raises:
        InvalidFields: The bytes are not whole numbers of int32.
    """
    return _unpack(field, data, _INT32)


def unpack_floats(field: str, data: bytes) -> Float32:
    """The float32 array (read-only) in a field.

    Raises:
        InvalidFields: The bytes are not whole numbers of float32.
    """
    return _unpack(field, data, _FLOAT32)


def unpack_bits(field: str, data: bytes, count: int) -> Bool:
    """The booleans in a field.

    Raises:
        InvalidFields: The bytes do not hold that many bits.
    """
    if len(data) != (count + 7) // 8:
        raise InvalidFields([FieldViolation(field, f"{len(data)} bytes do not hold {count} bits")])
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count, bitorder="little")
    return bits.view(np.bool_)


def _unpack(field: str, data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise InvalidFields(
            [FieldViolation(field, f"{len(data)} bytes are not whole {dtype.name}")]
        )
    return np.frombuffer(data, dtype=dtype)
