"""Residual matrix factorization: a dot product, and a perceptron for what it leaves."""

from __future__ import annotations

from marquee_trainer.models.deep_mf import PerceptronFactorModel
from marquee_trainer.models.factors import FactorConfig
from marquee_trainer.models.scoring_module import FoldInConfig


class ResidualMF(PerceptronFactorModel):
    """f = μ + b_i + b_u + p · q + MLP(p, q)."""

    name = "residual_mf"
    default = FactorConfig(
        dimensions=32,
        epochs=40,
        learning_rate=0.002,
        l2=0.04,
        hidden=(64, 32),
        dropout=0.3,
        weight_decay=1e-4,
        fold_in=FoldInConfig(ridge=1.0, ridge_per_rating=0.05, bias_ridge=5.0, steps=4),
    )
