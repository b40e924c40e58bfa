"""Which epoch of a fit a refit starts from, and that few weights are kept for it."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_trainer.models.neural.snapshots import Snapshots, epochs_done, weights_of


def run(snapshots: Snapshots, epochs: int, best: int) -> int:
    """Add each epoch's weights, of which one is the best; return the most kept at a time."""
    most = 0
    for epoch in range(1, epochs + 1):
        snapshots.best_is(min(epoch, best))
        if snapshots.wants(epoch):
            snapshots.add(epoch, [np.full(2, epoch, np.float32), np.zeros(1, np.float32)])
        most = max(most, len(snapshots._kept))
    return most


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("patience", [0, 5])
def test_the_start_is_close_to_the_share_of_the_best_epoch(share: float, patience: int) -> None:
    """It never exceeds the share, and with many epochs is at most a fifth less."""
    for best in range(1, 60):
        snapshots = Snapshots(share)
        most = run(snapshots, best + patience, best)
        start = snapshots.start(best)
        epoch = epochs_done(start)
        assert share * best / 1.25 - 1 < epoch <= share * best
        assert most <= 9
        if epoch:
            first, second = weights_of(start, 2)
            np.testing.assert_array_equal(first, [epoch, epoch])
            assert len(second) == 1


def test_a_fit_of_one_epoch_has_no_start() -> None:
    """Its refit starts anew."""
    snapshots = Snapshots(0.5)
    run(snapshots, 3, 1)
    assert not snapshots.start(1)
    assert epochs_done(snapshots.start(1)) == 0


def test_without_a_share_nothing_is_kept() -> None:
    """Models whose refits start anew pay nothing."""
    snapshots = Snapshots(0.0)
    assert run(snapshots, 20, 20) == 0
    assert not snapshots.start(20)
