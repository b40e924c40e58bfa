"""Users' calls succeed while releases and their store are damaged (short form of `make faults`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.fault_table import Row
from faults.release_faults import (
    damaged_copy,
    flipped_byte,
    full_disk,
    garbage_pointer,
    killed_publisher,
    nan_weights,
    promotions_at_once,
    rollback_past_damage,
    small_disk,
    truncated_in_place,
    unloadable,
)
from faults.release_system import System, running_system

pytestmark = [pytest.mark.alone, pytest.mark.slow]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A gateway and a CF service, with users who call continuously."""
    with running_system(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.mark.parametrize(
    "fault",
    [
        damaged_copy,
        truncated_in_place,
        lambda system: unloadable(system, "NaN in the weights", nan_weights),
        flipped_byte,
        garbage_pointer,
        rollback_past_damage,
        lambda system: promotions_at_once(system, rounds=1),
        lambda system: killed_publisher(system, kills=1),
    ],
)
def test_no_call_fails_while_releases_are_damaged(
    system: System, fault: Callable[[System], Row]
) -> None:
    """An unusable release is refused, the previous one is served, and no answer is degraded."""
    row = fault(system)
    assert not row.problems, row


def test_a_full_disk_delays_a_release_and_affects_no_answer(tmp_path: Path) -> None:
    """The previous release is served until there is space for the copies of the new one."""
    with small_disk(tmp_path / "small") as cache:
        if cache is None:
            pytest.skip("needs permission to mount a small file system")
        (tmp_path / "system").mkdir()
        with running_system(tmp_path / "system", cache) as system:
            row = full_disk(system)
    assert not row.problems, row
