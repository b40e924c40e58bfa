"""Hyperparameters for data of a different size than they were tuned on."""

from __future__ import annotations

import pytest

from marquee_core.scorers.hyperparameters import searched_hyperparameters
from marquee_trainer.models.configurations import model_factories
from marquee_trainer.models.extrapolation import UNCHANGED, extrapolated
from marquee_trainer.models.neural.autorec import ItemAutoRecConfig
from marquee_trainer.models.neural.mf import MFConfig
from marquee_trainer.models.registry import MODELS


@pytest.mark.parametrize("ratio", [1 / UNCHANGED, 1.0, UNCHANGED])
def test_hyperparameters_are_unchanged_for_similar_sizes(ratio: float) -> None:
    """With up to three times more or fewer ratings, hyperparameters are used unchanged."""
    for model in MODELS:
        assert extrapolated(model.name, model.config_type(), ratio) == {}


def test_capacity_shrinks_with_the_ratings_and_never_grows() -> None:
    """A sixteenth of the ratings halves the factors, and more ratings do not add any."""
    config = MFConfig(factors=64)
    assert extrapolated("mf", config, 1 / 16) == {"factors": 32}
    assert extrapolated("mf", config, 1 / 4096) == {
        "factors": 16
    }  # The minimum of the search space.
    assert extrapolated("mf", config, 16.0) == {}


def test_autorec_takes_fewer_epochs_and_a_higher_penalty_on_more_ratings() -> None:
    """With 16 times the ratings, AutoRec has half the epochs and 16^0.4 times the penalty."""
    config = ItemAutoRecConfig(epochs=70, patience=15, horizon=70, l2=100.0)
    found = extrapolated("autorec", config, 16.0)
    assert found == {"epochs": 35, "patience": 8, "horizon": 35, "l2": pytest.approx(303.14, 1e-3)}
    assert extrapolated("autorec", config, 1e6)["l2"] == 600.0
    assert extrapolated("autorec", config, 1e6)["epochs"] == 5


@pytest.mark.parametrize("ratings", [20, 5_000, 80_000, 900_000, 25_000_000, 10**9])
def test_all_models_can_be_created_for_any_size(ratings: int) -> None:
    """Extrapolated values stay within their search space."""
    for make in model_factories(ratings):
        config = make()._config
        for path, declared in searched_hyperparameters(type(config)).items():
            value = getattr(config, path, None)
            if value is not None and path in ("factors", "hidden_units"):
                assert declared.search is not None
                assert declared.search.low <= value <= declared.search.high
