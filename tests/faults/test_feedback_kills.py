"""Killed gateways and databases lose no acknowledged feedback (short form of `make faults`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faults.feedback_kills import kill_gateways

pytestmark = pytest.mark.alone

KILLS = 6


def test_no_acknowledged_event_is_lost_or_doubled(
    feedback_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Gateways are killed while they record; PostgreSQL itself crashes every other time."""
    database: Any = None
    if feedback_url.startswith("postgresql"):
        database = request.getfixturevalue("postgresql")
    outcome = kill_gateways(feedback_url, tmp_path, KILLS, seed=1, database=database)
    assert outcome.kills == KILLS
    assert outcome.acknowledged
    assert outcome.repeated, "no kill interrupted a call, so a lost event would go unnoticed"
    assert not outcome.lost
    assert not outcome.duplicated
    assert not outcome.unknown
