"""Keeps weights of a fit's early epochs, from which a refit continues.

A fit on some more ratings repeats most of the work of the first one. It could start from the fitted
weights, but early stopping has ended the first fit just before it would have overfitted, so every
further epoch on the same ratings makes the model worse (as Ash and Adams, 2020, observe for
networks that are trained further on more data). A refit therefore shares only the first part of the
fit: it starts from the weights of an earlier epoch, at the learning rate of that epoch, and trains
for the remaining epochs on all ratings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee_core.arrays import Float32
from marquee_trainer.models.model import NO_PARAMETERS, Parameters

# The number of an epoch is at least this multiple of that of the snapshot before.
_SPACING = 1.25
_EPOCH = "epoch"


class Snapshots:
    """The weights of a few epochs, one of which will be at about a given share of the best epoch.

    The best epoch is only known at the end, so several snapshots are kept, and those that have
    become too old are dropped.
    """

    def __init__(self, share: float) -> None:
        """Starts without snapshots.

        Args:
            share: The share of the epochs that a refit takes from the fit, 0 to 1; 0 keeps nothing.
        """
        self._share = share
        self._kept: dict[int, Sequence[Float32]] = {}
        self._next = 1.0

    def wants(self, epoch: int) -> bool:
        """Whether the weights after an epoch, counted from 1, are to be added."""
        return self._share > 0.0 and epoch >= self._next

    def add(self, epoch: int, weights: Sequence[Float32]) -> None:
        """Keeps copies of the weights after an epoch."""
        self._kept[epoch] = weights
        self._next = epoch * _SPACING

    def best_is(self, epoch: int) -> None:
        """Drops snapshots that are too old for this best epoch, and so for any later one."""
        start = self._before(epoch)
        self._kept = {each: self._kept[each] for each in self._kept if each >= start}

    def start(self, best: int) -> Parameters:
        """Returns the weights from which a refit starts; none if the fit had too few epochs.

        Args:
            best: The best epoch.
        """
        epoch = self._before(best)
        if not epoch:
            return NO_PARAMETERS
        weights = {_weight(n): each for n, each in enumerate(self._kept[epoch])}
        return {_EPOCH: np.array(epoch), **weights}

    def _before(self, best: int) -> int:
        """The epoch of the latest snapshot within the share of the best epoch; 0 if none is."""
        return max((epoch for epoch in self._kept if epoch <= self._share * best), default=0)


def epochs_done(start: Parameters) -> int:
    """The number of epochs that the weights of a start were trained for; 0 for no start."""
    return int(start[_EPOCH]) if start else 0


def weights_of(start: Parameters, count: int) -> list[Float32]:
    """The weights of a start, in the order of the network.

    Args:
        start: The result of `Snapshots.start`.
        count: Their number.
    """
    return [np.asarray(start[_weight(n)]) for n in range(count)]


def _weight(number: int) -> str:
    return f"weights_{number}"
