"""Deep matrix factorization: dot products and a perceptron on the vectors of user and item."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Training
from marquee_trainer.models.neural.leave_one_out_model import LeaveOneOutModel
from marquee_trainer.models.neural.leave_one_out_network import (
    LeaveOneOutConfig,
    LeaveOneOutNetwork,
)
from marquee_trainer.models.neural.perceptron_module import PerceptronModule


class DeepMF(LeaveOneOutModel[LeaveOneOutConfig]):
    """f = c_i + b_u + p · q_i + s · z_i + MLP(p, s, q_i, p ⊙ q_i): NeuMF (He et al., 2017).

    The perceptron has dense layers, batch normalisation, ReLU and dropout. p ⊙ q is one of its
    inputs, because a perceptron does not learn products from so few ratings (Rendle et al., 2020).
    """

    name = "deep_mf"
    config_type = LeaveOneOutConfig
    products = True

    def combiner(self, training: Training) -> Callable[[Float32, Float32], Float32]:
        """See `LeaveOneOutModel.combiner`: the sum of both."""
        del training
        return np.add

    def module(self, network: LeaveOneOutNetwork, data: ReleaseData) -> PerceptronModule:
        """See `LeaveOneOutModel.module`."""
        users = data.matrix.user_count
        return PerceptronModule(network.item_side(), network.served_layers(), users)
