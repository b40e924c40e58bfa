"""The number of threads that linear algebra uses while models are fitted."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from marquee_core.cores import usable_cores
from marquee_trainer.threads import blas_threads, threads_for_system


def in_use() -> set[int]:
    """Return the numbers of threads of all loaded BLAS libraries."""
    np.linalg.inv(np.eye(2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_limits_apply_inside_the_block_and_are_restored() -> None:
    """Limits can be nested, for example for a large system within a fit."""
    with threadpool_limits(2, user_api="blas"):
        before = in_use()
        with blas_threads(1):
            assert in_use() == {1}
            with blas_threads(2):
                assert in_use() == before
            assert in_use() == {1}
        assert in_use() == before


def test_large_systems_use_all_cores_unless_the_user_has_set_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Small systems always use one thread."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert (threads_for_system(100), threads_for_system(5_000)) == (1, usable_cores())
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (threads_for_system(100), threads_for_system(5_000)) == (1, 3)
