"""Array types, and `.npy` files, which are memory-mapped and never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from marquee_core.errors import ArtifactError

Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]


class ArrayError(ArtifactError):
    """An array file is missing or damaged, or holds another dtype or shape than expected."""


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
    """Memory-maps an array file read-only, so that processes on one host share its pages.

    Args:
        path: The `.npy` file.
        dtype: The expected dtype, or a kind such as "S" for strings of any length.
        shape: The expected shape; None allows any size in that dimension.

    Raises:
        ArrayError: The file is missing or damaged, or has another dtype or shape.
    """
    try:
        # Raises ValueError for an empty array, which cannot be mapped.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise ArrayError(f"{path.name}: {error}") from error
    except (OSError, EOFError) as error:
        raise ArrayError(f"{path.name}: {error}") from error
    fits = array.dtype.kind == dtype if isinstance(dtype, str) else array.dtype == np.dtype(dtype)
    if not fits:
        raise ArrayError(f"{path.name}: dtype {array.dtype}, expected {dtype}")
    if array.ndim != len(shape) or any(
        size is not None and found != size for found, size in zip(array.shape, shape, strict=True)
    ):
        raise ArrayError(f"{path.name}: shape {array.shape}, expected {shape}")
    # A plain array: indexing np.memmap takes several times as long.
    plain: NDArray[Any] = array.view(np.ndarray)
    return plain
