"""Experiments over toy releases."""

from __future__ import annotations

from typing import Any

from marquee_core.experiments.experiment import Arm, Experiment
from marquee_services.gateway.gateway import Gateway
from toy.services import Services

SECRET = "0123456789abcdef" * 2


def toy_experiment(*arms: Arm, name: str = "toy", **changes: Any) -> Experiment:
    """Return a running experiment with these arms, by default a control and a candidate of 50 %."""
    if not arms:
        arms = Arm("control", "r1", 50.0), Arm("candidate", "r2", 50.0)
    fields: dict[str, Any] = {
        "metric": "likes",
        "alpha": 0.05,
        "rating_min": 1.0,
        "rating_max": 5.0,
        "secret": SECRET,
        "started_at": "2026-01-01T00:00:00+00:00",
    }
    return Experiment(name, arms, **{**fields, **changes})


def users_of(experiment: Experiment, arm: str, count: int, known: int = 0) -> list[str]:
    """Return ids of users that the experiment assigns to an arm.

    Args:
        experiment: The experiment.
        arm: The arm's name.
        count: The number of users.
        known: Choose among the users u0 to u<known - 1> of the toy release; 0 for other users.
    """
    place = [each.name for each in experiment.arms].index(arm)
    ids = (f"u{n}" for n in range(known)) if known else (f"new{n}" for n in range(100 * count))
    found = [user for user in ids if experiment.assign(user) == place][:count]
    assert len(found) == count, "the experiment assigns fewer users to the arm"
    return found


async def until_ready(gateway: Gateway, services: Services, name: str) -> None:
    """Wait until a gateway serves every arm of an experiment.

    Args:
        gateway: The gateway.
        services: The services that the gateway belongs to.
        name: The name of the experiment.
    """
    routing = gateway.routing
    await services.until(
        lambda: (
            routing.experiment is not None
            and routing.experiment.name == name
            and not any(state.reason for state in routing.arms)
        )
    )
