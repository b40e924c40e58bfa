"""The models of a release, in the order in which they are trained."""

from __future__ import annotations

from collections.abc import Callable

from marquee_trainer.models.autorec import AutoRec, UserAutoRec
from marquee_trainer.models.bayesian_mf import BayesianMF
from marquee_trainer.models.deep_mf import DeepMF
from marquee_trainer.models.ease import EASE
from marquee_trainer.models.ials import IALS
from marquee_trainer.models.item_cf import ItemCF
from marquee_trainer.models.mf import MF
from marquee_trainer.models.model import Model
from marquee_trainer.models.residual_mf import ResidualMF
from marquee_trainer.models.slit import SLIT
from marquee_trainer.models.user_cf import UserCF

MODELS: tuple[Callable[[], Model], ...] = (
    UserCF,
    ItemCF,
    EASE,
    SLIT,
    BayesianMF,
    IALS,
    MF,
    DeepMF,
    ResidualMF,
    AutoRec,
    UserAutoRec,
)
