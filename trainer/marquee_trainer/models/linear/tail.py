"""Fits the sparse weights of the tail: the items without dense weights.

Each item of the tail is regressed on the few items of the core that explain most of it, as in SLIM
with feature selection (Ning and Karypis, 2011), which takes one small linear system per item.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32, Int64
from marquee_core.scorers.tail_weights import TailWeights

TAIL_BLOCK = 512
"""Number of items regressed at a time; with 64 sources each, their systems take 16 MB."""


def regress(
    system: Float64 | Float32, targets: Float64 | Float32, source_count: int
) -> tuple[Int32, Float64]:
    """Regresses each of t targets on the items that explain most of it.

    The sources S of a target are those with the largest (g_s)² / A_ss, the reduction of the squared
    error by s alone. Their weights solve A_SS b = g_S.

    Args:
        system: A, the regularised Gram matrix of the core (m × m).
        targets: g, the products of each target with the core (t × m).
        source_count: The number of sources, at most m.

    Returns:
        The sources of each target, ascending (int32, t × n), and their weights (float64, t × n).
    """
    count = min(source_count, len(system))
    wide = np.asarray(targets, dtype=np.float64)
    explained: Float64 = np.square(wide) / np.asarray(system.diagonal(), dtype=np.float64)
    if count < len(system):
        sources = np.argpartition(explained, -count, axis=1)[:, -count:]
        sources.sort(axis=1)
    else:
        sources = np.broadcast_to(np.arange(count), (len(targets), count))
    systems = np.asarray(system[sources[:, :, None], sources[:, None, :]], dtype=np.float64)
    right = np.take_along_axis(wide, sources, axis=1)
    solved = np.linalg.solve(systems, right[:, :, None])[:, :, 0]
    return sources.astype(np.int32), np.asarray(solved, dtype=np.float64)


def tail_of(
    items: Int32,
    core_count: int,
    source_count: int,
    block_weights: Callable[[slice], tuple[Int32, Float64, Float64]],
) -> TailWeights:
    """Computes the weights of a tail in blocks of items.

    Args:
        items: The items of the tail, ascending (int32, t).
        core_count: m, the number of items of the core.
        source_count: The number of sources of each item.
        block_weights: A function from a part of `items` to their sources (int32, B × n), the
            weights from these and the weights to these (float64, B × n each).
    """
    count = min(source_count, core_count)
    shape = len(items), count
    sources = np.empty(shape, dtype=np.int32)
    forward, backward = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for start in range(0, len(items), TAIL_BLOCK):
        part = slice(start, min(start + TAIL_BLOCK, len(items)))
        sources[part], forward[part], backward[part] = block_weights(part)
    indptr: Int64 = np.arange(len(items) + 1, dtype=np.int64) * count
    return TailWeights(
        items, indptr, sources.ravel(), forward.ravel(), backward.ravel(), core_count
    )
