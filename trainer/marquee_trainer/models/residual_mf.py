"""Residual matrix factorization: a dot product, and a perceptron for what it leaves."""

from __future__ import annotations

from marquee_trainer.models.deep_mf import PerceptronFactorModel
from marquee_trainer.models.factors import FactorConfig
from marquee_trainer.models.scoring_module import FoldInConfig


class ResidualMF(PerceptronFactorModel):
    """f = μ + b_i + b_u + p · q + MLP(p, q)."""

    name = "residual_mf"
    default = FactorConfig(
        dimensions=64,
        epochs=40,
        learning_rate=0.003,
        l2=0.07,
        hidden=(32, 16),
        dropout=0.5,
        weight_decay=5e-3,
        fold_in=FoldInConfig(
            ridge=1.0, ridge_per_rating=0.12, bias_ridge=5.0, steps=6, step_length=0.5
        ),
    )
