"""Answers and the feedback log stay correct while parts fail (short form of `make faults`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.feedback_faults import (
    clocks_differ,
    database_killed,
    gateway_restarted,
    repeated_and_late,
)
from toy.postgresql import PostgreSQL

pytestmark = pytest.mark.alone


def test_an_outage_of_the_database_stops_no_answer_and_loses_no_event(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """During an outage users get answers and records are refused; all lists are counted later."""
    row = database_killed(postgresql, tmp_path, outages=1)
    assert not row.problems, row


def test_a_restarted_gateway_catches_up_before_it_serves(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """Its first answers use the feedback that was recorded while it was down."""
    row = gateway_restarted(postgresql.new_database(), tmp_path, users=20)
    assert not row.problems, row


def test_clock_skew_duplicates_and_late_events_do_not_change_what_counts(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """The latest event by a common clock counts, exactly once."""
    for name in ("clocks", "copies"):
        (tmp_path / name).mkdir()
    rows = (
        clocks_differ(postgresql.new_database(), tmp_path / "clocks"),
        repeated_and_late(postgresql.new_database(), tmp_path / "copies", copies=6),
    )
    for row in rows:
        assert not row.problems, row
