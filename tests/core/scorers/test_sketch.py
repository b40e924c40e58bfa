"""The low-rank sketch of long dot products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_core.arrays import Float32
from marquee_core.errors import ArtifactError
from marquee_core.scorers.sketch import Sketch


def vectors_of_rank(rank: int, items: int = 90, width: int = 40) -> tuple[Float32, Float32]:
    """Draw vectors of items and users whose scores have a low rank (float32, n × width)."""
    random = np.random.default_rng(rank)
    space = random.standard_normal((rank, width))
    return (
        (random.standard_normal((items, rank)) @ space).astype(np.float32),
        (random.standard_normal((70, rank)) @ space).astype(np.float32),
    )


def test_scores_within_the_space_are_exact() -> None:
    """A sketch is lossless if the scores have no higher rank than the sketch."""
    items, users = vectors_of_rank(5)
    sketch = Sketch.of(items, users, rank=8)
    exact = users @ items.T
    np.testing.assert_allclose(sketch.products(users), exact, atol=1e-3 * np.abs(exact).max())


def test_a_sketch_is_as_good_as_the_best_of_its_rank() -> None:
    """The error is close to that of the truncated singular value decomposition of the scores."""
    items, users = vectors_of_rank(30)
    exact = users @ items.T
    singular = np.linalg.svd(exact, compute_uv=False)
    error = np.linalg.norm(Sketch.of(items, users, rank=10).products(users) - exact)
    assert error <= 1.02 * np.sqrt(np.square(singular[10:]).sum())
    assert error > 0


def test_a_sketch_has_at_most_as_many_dimensions_as_items_or_users() -> None:
    """Small catalogues do not fail."""
    items, users = vectors_of_rank(3, items=2)
    sketch = Sketch.of(items, users, rank=48)
    np.testing.assert_allclose(sketch.products(users), users @ items.T, rtol=1e-3, atol=1e-3)


def test_a_saved_sketch_is_loaded_and_a_damaged_one_refused(tmp_path: Path) -> None:
    """Loading returns the saved sketch, and the error for a damaged one names the file."""
    items, users = vectors_of_rank(5)
    sketch = Sketch.of(items, users, rank=4)
    assert not Sketch.is_saved(tmp_path)
    sketch.save(tmp_path)
    loaded = Sketch.load(tmp_path, len(items), items.shape[1])
    np.testing.assert_array_equal(loaded.products(users), sketch.products(users))
    np.save(tmp_path / "sketch_projection.npy", np.full((40, 4), np.nan, dtype=np.float32))
    with pytest.raises(ArtifactError, match="sketch_projection"):
        Sketch.load(tmp_path, len(items), items.shape[1])
    with pytest.raises(ArtifactError, match="sketch_basis"):
        Sketch.load(tmp_path, len(items) + 1, items.shape[1])
