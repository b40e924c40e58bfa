"""Recommendation ids identify the origin of a list, and cannot be forged."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from marquee_core.experiments.recommendation_id import (
    id_prefix,
    new_recommendation_id,
    parse_recommendation_id,
)
from toy.experiments import toy_experiment

_LIMIT = 64


@given(st.text(min_size=1, max_size=256), st.integers(0, 1))
def test_an_id_is_valid_only_for_its_user_arm_and_experiment(user: str, arm: int) -> None:
    """An id does not match another user, arm, experiment or secret."""
    experiment = toy_experiment()
    text = new_recommendation_id(experiment, arm, user)
    assert len(text) <= _LIMIT
    assert text.startswith(id_prefix(experiment))
    origin = parse_recommendation_id(text)
    assert origin is not None
    assert origin.arm == arm
    assert origin.belongs_to(experiment, user)
    assert not origin.belongs_to(experiment, user + "x")
    assert not origin.belongs_to(toy_experiment(name="other"), user)
    assert not origin.belongs_to(replace(experiment, secret="f" * 32), user)
    place = len(id_prefix(experiment))
    forged = parse_recommendation_id(text[:place] + str(1 - arm) + text[place + 1 :])
    assert forged is not None
    assert not forged.belongs_to(experiment, user)


@given(st.text(max_size=80))
def test_other_ids_belong_to_no_experiment(text: str) -> None:
    """Ids of lists outside experiments, and arbitrary text, belong to no experiment."""
    assert parse_recommendation_id(text) is None


def test_ids_are_unique() -> None:
    """Two lists of the same user have different ids."""
    experiment = toy_experiment()
    assert len({new_recommendation_id(experiment, 0, "u") for _ in range(1_000)}) == 1_000
