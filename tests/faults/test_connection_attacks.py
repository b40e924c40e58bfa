"""Users' calls succeed while a gateway's connections are attacked (short form of `make faults`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.connection_attacks import ATTACKS, AttackPlan, descriptors_exhausted, run_attack

pytestmark = [pytest.mark.alone, pytest.mark.slow]


@pytest.mark.parametrize("plan", ATTACKS, ids=lambda plan: f"{plan.kind}-{plan.connections}")
def test_no_call_of_a_user_fails_during_an_attack(plan: AttackPlan, tmp_path: Path) -> None:
    """All users' calls succeed, and the gateway's memory stays within its limit."""
    row = run_attack(plan, tmp_path, 3.0)
    assert not row.problems, row


def test_descriptors_are_kept_in_reserve(tmp_path: Path) -> None:
    """A gateway with more connections than file descriptors keeps working and exits cleanly."""
    row = descriptors_exhausted(tmp_path, 2.0)
    assert not row.problems, row
