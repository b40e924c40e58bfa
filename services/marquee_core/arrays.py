"""Array types, and array files that are memory-mapped and never unpickled."""

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
    """An array file does not hold what its reader needs."""


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array as `.npy` in C order.

    Raises:
        ArrayError: The array holds a value that is not finite.
    """
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ArrayError(f"{path.name}: not every value is finite")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def load_array(path: Path, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Memory-maps an array file read-only, so that replicas on a host share its pages.

    Args:
        path: The `.npy` file.
        dtype: The dtype that it must have (a kind such as "S" admits any length).
        shape: The shape that it must have; None admits any size of that dimension.

    Raises:
        ArrayError: The file is not such an array.
    """
    try:
        # An empty array cannot be mapped.
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
        raise ArrayError(f"{path.name}: dtype {array.dtype}, not {dtype}")
    if array.ndim != len(shape) or any(
        want is not None and have != want for have, want in zip(array.shape, shape, strict=True)
    ):
        raise ArrayError(f"{path.name}: shape {array.shape}, not {shape}")
    # A plain view: indexing an np.memmap costs several times as much.
    plain: NDArray[Any] = array.view(np.ndarray)
    return plain
