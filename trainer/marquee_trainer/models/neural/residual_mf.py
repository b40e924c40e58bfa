"""Residual matrix factorization: products and a residual branch, on biases and neighbourhoods."""

from __future__ import annotations

from marquee_trainer.models.neural.deep_mf import DeepMF
from marquee_trainer.models.neural.leave_one_out import LeaveOneOutConfig


class ResidualMF(DeepMF):
    """f = c_i + b_u + w_f (p · q_i + s · z_i + MLP(p, s, q_i)) + w_n n_ui.

    n is what item neighbourhoods add to the baseline. The two parts are fitted side by side to
    what biases leave, and weighted: factors that are fitted to what neighbourhoods leave learn
    less, because neighbourhoods fit the ratings that they were found with too well.
    """

    name = "residual_mf"
    default = LeaveOneOutConfig(products=False, factor_weight=0.8, neighbour_weight=0.35)
