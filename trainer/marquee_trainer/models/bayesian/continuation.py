"""Continues the Markov chain of an earlier fit on more ratings of the same users and items.

The last sample of that fit is close to the posterior of the new ratings, so the chain needs a short
burn-in only. The vectors of users are not kept: the first step of a sweep draws them from the
parameters of the items.
"""

from __future__ import annotations

import numpy as np

from marquee_trainer.models.bayesian.gibbs import GibbsSampler, Side
from marquee_trainer.models.model import Parameters

_NOISE_RATE, _ITEM_VECTORS = "noise_rate", "item_vectors"


def chain_parameters(chain: GibbsSampler) -> Parameters:
    """Copies the current sample of a chain, without the vectors of the users."""
    return {
        _NOISE_RATE: np.array(chain.noise_rate),
        _ITEM_VECTORS: chain.items.vectors.copy(),
        **_prior("user", chain.users),
        **_prior("item", chain.items),
    }


def continue_chain(chain: GibbsSampler, sample: Parameters) -> None:
    """Replaces the initial sample of a chain.

    Args:
        chain: A chain without sweeps.
        sample: The `chain_parameters` of a chain on other ratings of the same users and items.

    Raises:
        ValueError: They are of another number of users, items or factors.
    """
    chain.noise_rate = float(sample[_NOISE_RATE])
    chain.items.vectors[...] = sample[_ITEM_VECTORS]
    _set_prior("user", chain.users, sample)
    _set_prior("item", chain.items, sample)


def _prior(name: str, side: Side) -> Parameters:
    return {
        f"{name}_noise": side.noise.copy(),
        f"{name}_mean": side.mean.copy(),
        f"{name}_precision": side.precision.copy(),
        f"{name}_link_precision": np.array(side.link_precision),
        f"{name}_linked_columns": side.links.columns.copy(),
        f"{name}_weights": side.weights.copy(),
    }


def _set_prior(name: str, side: Side, sample: Parameters) -> None:
    side.noise[...] = sample[f"{name}_noise"]
    side.mean[...] = sample[f"{name}_mean"]
    side.precision[...] = sample[f"{name}_precision"]
    side.link_precision = float(sample[f"{name}_link_precision"])
    # Beyond a limit, only the columns with the most ratings are features. Those that were not
    # before have no weights yet.
    _, new, old = np.intersect1d(
        side.links.columns, sample[f"{name}_linked_columns"], return_indices=True
    )
    weights = np.zeros_like(side.weights)
    weights[new] = sample[f"{name}_weights"][old]
    side.set_weights(weights)
