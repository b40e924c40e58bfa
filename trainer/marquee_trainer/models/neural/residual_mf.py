"""Residual matrix factorization: factors and a perceptron combined with item neighbourhoods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.scorers.hyperparameters import PositiveFloat, Search
from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.models.model import Training, predict_pairs
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.item_neighbourhoods import ItemNeighbourhoods
from marquee_trainer.models.neural.leave_one_out_model import LeaveOneOutModel
from marquee_trainer.models.neural.leave_one_out_network import (
    LeaveOneOutConfig,
    LeaveOneOutNetwork,
)
from marquee_trainer.models.neural.perceptron_module import PerceptronModule


@dataclass(frozen=True)
class ResidualMFConfig(LeaveOneOutConfig):
    """The hyperparameters of residual MF; see also `LeaveOneOutConfig`.

    Attributes:
        factor_weight: w_f, the weight of dot products and perceptron in the prediction. They are
            trained with weight 1.
        neighbour_weight: w_n, the weight of the item neighbourhoods in the prediction.
        neighbours: The hyperparameters of the item neighbourhoods.
    """

    factor_weight: Annotated[PositiveFloat, Search(0.4, 1.0, log=False)] = 0.8
    neighbour_weight: Annotated[PositiveFloat, Search(0.1, 0.8, log=False)] = 0.35
    neighbours: ItemCFConfig = field(default_factory=ItemCFConfig)


class ResidualMF(LeaveOneOutModel[ResidualMFConfig]):
    """f = c_i + b_u + w_f (p · q_i + s · z_i + MLP(p, s, q_i)) + w_n n_ui.

    n_ui is the term that item neighbourhoods add to the baseline. The two parts are fitted
    separately, each to the residuals of biases, and then weighted. Fitting the factors to the
    residuals of the neighbourhoods is worse, because neighbourhoods overfit the ratings from which
    they are computed.
    """

    name = "residual_mf"
    config_type = ResidualMFConfig
    products = False

    def combiner(self, training: Training) -> Callable[[Float32, Float32], Float32]:
        """See `LeaveOneOutModel.combiner`: the weighted sum, including the neighbourhoods' part."""
        config = self._config
        neighbour_part = np.zeros(1, dtype=np.float32)
        if training.validation is not None:
            neighbour_part = self._neighbour_part(training.data, training.validation)

        def combine(biases: Float32, additions: Float32) -> Float32:
            return biases + config.factor_weight * additions + neighbour_part

        return combine

    def module(self, network: LeaveOneOutNetwork, data: ReleaseData) -> PerceptronModule:
        """See `LeaveOneOutModel.module`."""
        config = self._config
        return PerceptronModule(
            network.item_side(),
            network.served_layers(),
            data.matrix.user_count,
            config.factor_weight,
            ItemNeighbourhoods(data, config.neighbours),
            config.neighbour_weight,
        )

    def _neighbour_part(self, data: ReleaseData, pairs: Interactions) -> Float32:
        """w_n n_ui of pairs, in stars (float32, n)."""
        scorer = ItemCF(self._config.neighbours).learn(data)
        stars = predict_pairs(scorer, data, pairs.users, pairs.items)
        user_bias = data.baseline.user_bias(data.matrix.all_profiles())[pairs.users]
        baseline = data.baseline.mean + data.baseline.item_bias[pairs.items] + user_bias
        return (self._config.neighbour_weight * (stars - baseline)).astype(np.float32)
