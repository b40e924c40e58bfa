"""Simple matrix factorization: biases and a dot product (Koren, Bell and Volinsky, 2009)."""

from __future__ import annotations

from marquee_services.scoring.scorer import ReleaseData
from marquee_trainer.models.factors import FactorConfig, FactorModel, FactorNetwork
from marquee_trainer.models.scoring_module import FoldInConfig, LinearModule, ScoringModule


class MF(FactorModel):
    """f = μ + b_i + b_u + p · q."""

    name = "mf"
    default = FactorConfig(
        dimensions=64,
        epochs=40,
        learning_rate=0.002,
        l2=0.065,
        fold_in=FoldInConfig(ridge=1.0, ridge_per_rating=0.07, bias_ridge=5.0),
    )

    def module(self, network: FactorNetwork, data: ReleaseData) -> ScoringModule:  # noqa: ARG002
        """As `FactorModel.module`."""
        return LinearModule(network.item_table(), network.offsets(), self._config.fold_in)
