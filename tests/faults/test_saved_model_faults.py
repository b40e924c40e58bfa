"""Users' calls succeed while releases hold faulty SavedModels (short form of `make faults`)."""

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
    """A gateway and an inference service, with users who call continuously."""
    with saved_model_system(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.mark.parametrize(
    "fault", [never_loaded, ended_while_loading, fails_for_some_items, fails_for_some_visitors]
)
def test_no_call_fails_with_a_faulty_saved_model(
    system: tuple[System, Models], fault: Callable[[System, Models], Row]
) -> None:
    """The release is refused or withdrawn after a few failures, and servers shut down cleanly."""
    row = fault(*system)
    assert not row.problems, row
