"""The registered models, in the order in which they are trained."""

from __future__ import annotations

from collections.abc import Mapping

from marquee_core.scorers.hyperparameters import ModelConfig
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.linear.slit import SLIT
from marquee_trainer.models.model import ConfiguredModel
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.models.neural.autorec import AutoRec, UserAutoRec
from marquee_trainer.models.neural.deep_mf import DeepMF
from marquee_trainer.models.neural.mf import MF
from marquee_trainer.models.neural.residual_mf import ResidualMF

MODELS: tuple[type[ConfiguredModel[ModelConfig]], ...] = (
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

MODELS_BY_NAME: Mapping[str, type[ConfiguredModel[ModelConfig]]] = {
    model_class.name: model_class for model_class in MODELS
}
