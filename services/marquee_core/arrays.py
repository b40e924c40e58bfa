"""Array types, and functions that save and memory-map `.npy` files without pickle."""

from __future__ import annotations

import math
import threading
import tokenize
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from marquee_core.errors import ArtifactError

Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
UInt16: TypeAlias = NDArray[np.uint16]
UInt64: TypeAlias = NDArray[np.uint64]
Bool: TypeAlias = NDArray[np.bool_]

# NumPy reads a header with Python's parser, which occasionally fails when two threads use it
# concurrently (CPython issue 106905).
_header_lock = threading.Lock()


# Up to this size, `transposed` copies.
_MAX_COPY_BYTES = 16 * 1024 * 1024


class ArrayError(ArtifactError):
    """An array file is missing or damaged, or has an unexpected dtype or shape."""


def transposed(vectors: Float32) -> Float32:
    """Returns the transpose of vectors, for products of user vectors with all item vectors.

    With a copy that is contiguous by row, the products are twice as fast or more. Large arrays are
    not copied.

    Args:
        vectors: The vectors (float32, n × d).

    Returns:
        The transpose (float32, d × n).
    """
    return np.ascontiguousarray(vectors.T) if vectors.nbytes <= _MAX_COPY_BYTES else vectors.T


def position_dtype(count: int) -> type[np.int32] | type[np.int64]:
    """Returns int32 if it can hold every position up to `count`, and int64 otherwise."""
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array to a `.npy` file, in C order.

    Raises:
        ArrayError: The array contains a value that is not finite.
    """
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ArrayError(f"{path.name}: the array contains values that are not finite")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def load_array(path: Path, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Memory-maps an array file read-only, so that processes on the same host share its pages.

    The header is checked against the expected dtype and shape and against the size of the file
    before any memory is reserved.

    Args:
        path: The `.npy` file.
        dtype: The expected dtype, or a kind such as "S" for strings of any length.
        shape: The expected shape; None allows any size in that dimension.

    Raises:
        ArrayError: The file is missing or damaged, has another dtype or shape, or contains a value
            that is not finite.
    """
    try:
        with path.open("rb") as stream:
            found, fortran_order, kind = _read_header(stream)
            start = stream.tell()
        size = path.stat().st_size
    except (ValueError, OSError, EOFError, OverflowError) as error:
        raise ArrayError(f"{path.name}: {error}") from error
    fits = kind.kind == dtype if isinstance(dtype, str) else kind == np.dtype(dtype)
    if not fits or kind.hasobject or fortran_order:
        raise ArrayError(f"{path.name}: dtype {kind}, expected {dtype} in C order")
    if len(found) != len(shape) or any(
        expected is not None and length != expected
        for length, expected in zip(found, shape, strict=True)
    ):
        raise ArrayError(f"{path.name}: shape {found}, expected {shape}")
    needed = start + math.prod(found) * kind.itemsize
    if size != needed:
        raise ArrayError(f"{path.name}: {size} bytes, but an array of shape {found} has {needed}")
    if size == start:  # an empty array cannot be mapped
        return np.empty(found, kind)
    # As a plain array, because indexing an np.memmap takes several times as long.
    array: NDArray[Any] = np.memmap(path, kind, "r", start, found).view(np.ndarray)
    # The minimum and maximum of an array with NaN are NaN. Unlike np.isfinite, this allocates no
    # mask.
    if kind.kind == "f" and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise ArrayError(f"{path.name}: the array contains values that are not finite")
    return array


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Reads the header of a `.npy` file: the shape, whether it is in Fortran order, the dtype."""
    version = np.lib.format.read_magic(stream)
    try:
        with _header_lock:
            if version == (1, 0):
                return np.lib.format.read_array_header_1_0(stream)
            if version == (2, 0):
                return np.lib.format.read_array_header_2_0(stream)
    except (SyntaxError, tokenize.TokenError, TypeError, RecursionError) as error:
        # The header is a Python literal, and an invalid one may raise any of these.
        raise ValueError(f"the header cannot be read: {error}") from error
    raise ValueError(f"version {version} of the format is not supported")


def positions_of(items: Int32, item_count: int) -> Int32:
    """Returns the position of each catalogue item in `items`, or -1 (int32, items)."""
    positions = np.full(item_count, -1, dtype=np.int32)
    positions[items] = np.arange(len(items), dtype=np.int32)
    return positions
