"""Deep matrix factorization: a perceptron on the embeddings of user and item."""

from __future__ import annotations

from marquee_services.scoring.scorer import ReleaseData
from marquee_trainer.models.factors import FactorConfig, FactorModel, FactorNetwork
from marquee_trainer.models.scoring_module import FoldInConfig, PerceptronModule, ScoringModule


class PerceptronFactorModel(FactorModel):
    """A model whose score has a perceptron."""

    def module(self, network: FactorNetwork, data: ReleaseData) -> ScoringModule:
        """As `FactorModel.module`."""
        return PerceptronModule(
            network.item_table(),
            network.offsets(),
            network.layers_as_served(),
            self._config.with_dot,
            network.mean_user(data.matrix),
            self._config.fold_in,
        )


class DeepMF(PerceptronFactorModel):
    """f = μ + b_i + b_u + MLP(p, q): dense layers, batch normalisation, ReLU and dropout."""

    name = "deep_mf"
    default = FactorConfig(
        dimensions=32,
        epochs=40,
        learning_rate=0.002,
        l2=0.03,
        hidden=(128, 64),
        with_dot=False,
        dropout=0.5,
        weight_decay=2e-3,
        fold_in=FoldInConfig(
            ridge=1.0, ridge_per_rating=0.3, bias_ridge=5.0, steps=8, step_length=0.5
        ),
    )
