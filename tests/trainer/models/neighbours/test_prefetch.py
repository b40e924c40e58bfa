"""Prefetching in compiled loops."""

from __future__ import annotations

import numpy as np
from numba import njit

from marquee_trainer.models.neighbours.prefetch import prefetch


@njit
def _sum(values: np.ndarray, ahead: int) -> float:
    total = 0.0
    for index in range(len(values)):
        prefetch(values, index + ahead)
        total += values[index]
    return total


def test_compiled_code_contains_the_prefetch_and_computes_the_same() -> None:
    """The instruction is not optimised away, and indexes outside the array are harmless."""
    values = np.arange(10, dtype=np.float32)
    for ahead in (0, 1_000_000, -1_000_000):
        assert _sum(values, ahead) == 45.0
    (code,) = _sum.inspect_llvm().values()
    assert "call void @llvm.prefetch" in code
