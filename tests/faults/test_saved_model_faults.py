"""What users get while SavedModels go wrong (short form of `make faults`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from faults.fault_table import Row
from faults.release_system import System
from faults.saved_model_faults import (
    Models,
    ended_while_loading,
    fails_for_some_items,
    fails_for_some_visitors,
    never_loaded,
    saved_model_system,
)

pytestmark = [pytest.mark.alone, pytest.mark.slow]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Models]]:
    """A gateway and an inference service, with users who call all the time."""
    with saved_model_system(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.mark.parametrize(
    "fault", [never_loaded, ended_while_loading, fails_for_some_items, fails_for_some_visitors]
)
def test_no_call_fails_whatever_a_saved_model_does(
    system: tuple[System, Models], fault: Callable[[System, Models], Row]
) -> None:
    """It is refused, or withdrawn after some degraded answers, and servers can be ended."""
    row = fault(*system)
    assert not row.wrong, row
