"""Experiments: which definitions are valid, and which arm a user gets."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.errors import ArtifactError
from marquee_core.experiments.arm_argument import parse_arm
from marquee_core.experiments.experiment import Arm, Experiment, ExperimentError
from toy.experiments import toy_experiment

USERS = 100_000


@pytest.mark.parametrize("shares", [(50.0, 50.0), (90.0, 10.0), (1.0, 33.3, 65.7)])
@pytest.mark.parametrize("form", ["{}", "user-{:08d}", "{:x}@example.org"])
def test_users_are_assigned_in_proportion(shares: tuple[float, ...], form: str) -> None:
    """Over 100,000 ids, the share of each arm is accurate to one percent of all users."""
    names = ("control", "b", "c")
    arms = [Arm(names[place], "r", share) for place, share in enumerate(shares)]
    experiment = toy_experiment(*arms)
    counts = [0] * len(shares)
    for number in range(USERS):
        counts[experiment.assign(form.format(number))] += 1
    for count, share in zip(counts, shares, strict=True):
        assert abs(count / USERS - share / 100.0) < 0.01


def test_the_assignment_is_the_same_in_another_process() -> None:
    """The hash of Python differs between processes, but the assignment does not."""
    code = (
        "from toy.experiments import toy_experiment as t\n"
        "print(''.join(str(t().assign(f'u{n}')) for n in range(200)))"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    experiment = toy_experiment()
    assert done.stdout.strip() == "".join(str(experiment.assign(f"u{n}")) for n in range(200))


def test_experiments_assign_independently() -> None:
    """The arm of a user in one experiment does not predict the arm in the next one."""
    first, second = toy_experiment(name="first"), toy_experiment(name="second")
    both = sum(
        first.assign(str(number)) == second.assign(str(number)) == 1 for number in range(USERS)
    )
    assert abs(both / USERS - 0.25) < 0.01


def test_increasing_a_share_keeps_its_users() -> None:
    """Users of the first arm stay in it if its share increases."""
    small = toy_experiment(Arm("control", "r", 10.0), Arm("b", "r", 90.0))
    large = toy_experiment(Arm("control", "r", 60.0), Arm("b", "r", 40.0))
    for number in range(2_000):
        if small.assign(str(number)) == 0:
            assert large.assign(str(number)) == 0


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([("control", 100.0)], "2 to 4 arms"),
        ([("control", 20.0)] * 5, "2 to 4 arms"),
        ([("a", 50.0), ("b", 50.0)], "named 'control'"),
        ([("control", 50.0), ("control", 50.0)], "same name"),
        ([("control", 50.0), ("b", 49.0)], "add up to 99 %"),
        ([("control", float("nan")), ("b", 50.0)], "share must be above"),
        ([("control", 0.0), ("b", 100.0)], "share must be above"),
        ([("control", 50.0), ("b c", 50.0)], "letters, digits"),
    ],
)
def test_invalid_arms_are_refused(arms: list[tuple[str, float]], message: str) -> None:
    """The error says what is wrong with the arms."""
    with pytest.raises(ExperimentError, match=message):
        toy_experiment(*(Arm(name, "r", share) for name, share in arms))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../x"}, "name of an experiment"),
        ({"metric": "money"}, "metric must be one of"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"rating_min": 5.0}, "scale"),
        ({"secret": "0"}, "secret"),
    ],
)
def test_invalid_experiments_are_refused(changes: dict[str, object], message: str) -> None:
    """The error says what is wrong with the definition."""
    with pytest.raises(ExperimentError, match=message):
        toy_experiment(**changes)  # type: ignore[arg-type]


def test_an_experiment_is_unchanged_by_a_json_round_trip() -> None:
    """An experiment that is read equals the one that was written."""
    arm = Arm("calm", "r2", 10.0, {"ease": 0.5, "popularity": 1.0})
    experiment = replace(
        toy_experiment(Arm("control", "r1", 90.0), arm), ended_at="x", outcome="stopped"
    )
    assert Experiment.from_json(json.loads(json.dumps(experiment.to_json()))) == experiment


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(toy_experiment().to_json())), _JSON)
def test_a_damaged_experiment_is_refused_or_valid(field: str, value: object) -> None:
    """Replacing any field gives a valid experiment or an ArtifactError."""
    raw = {**toy_experiment().to_json(), field: value}
    try:
        experiment = Experiment.from_json(raw)
    except ArtifactError:
        return
    assert Experiment.from_json(experiment.to_json()) == experiment


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("control=r1:90", Arm("control", "r1", 90.0)),
        ("b=production:10%", Arm("b", "live", 10.0)),
        ("b=r1@popularity:12.5", Arm("b", "r1", 12.5, {"popularity": 1.0})),
        ("b=r1@ease=0.7,ials=-1:5", Arm("b", "r1", 5.0, {"ease": 0.7, "ials": -1.0})),
    ],
)
def test_both_forms_of_an_arm_are_parsed(text: str, arm: Arm) -> None:
    """An arm is a release, with its own blend or with other ranking weights."""
    assert parse_arm(text, "live") == arm


@pytest.mark.parametrize(
    "text", ["", "r1:90", "a=r1", "a=r1:x", "a=r1@:5", "a=r1@m,m:5", "a=r1@m=x:5", "a=a/b:5"]
)
def test_malformed_arms_are_refused(text: str) -> None:
    """The error is one that the command reports in one line."""
    with pytest.raises(ExperimentError):
        parse_arm(text, "live")
