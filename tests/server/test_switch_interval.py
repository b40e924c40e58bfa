"""The switch interval is short while a block needs it, and restored afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from marquee_services.server import switch_interval
from marquee_services.server.switch_interval import limit_switch_interval


@pytest.fixture(autouse=True)
def own_interval(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """A process without other limits: servers of other tests may have left some."""
    monkeypatch.setattr(switch_interval, "_limits", [])
    monkeypatch.setattr(switch_interval, "_own", [])
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    yield sys.getswitchinterval()
    sys.setswitchinterval(before)


def test_the_interval_is_restored_when_the_last_block_exits(own_interval: float) -> None:
    """Loads of the standalone server's parts overlap, and end in any order."""
    first, second = ExitStack(), ExitStack()
    first.enter_context(limit_switch_interval(0.0005))
    second.enter_context(limit_switch_interval(0.0005))
    first.close()
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    second.close()
    assert sys.getswitchinterval() == own_interval


def test_the_shortest_limit_holds(own_interval: float) -> None:
    """A gateway with feedback needs shorter turns than the loading of a release."""
    feedback, load = ExitStack(), ExitStack()
    load.enter_context(limit_switch_interval(0.0005))
    feedback.enter_context(limit_switch_interval(0.0001))
    load.close()
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    feedback.close()
    assert sys.getswitchinterval() == own_interval


def test_a_limit_never_lengthens_the_interval(own_interval: float) -> None:
    """Somebody may have set an even shorter one for the whole process."""
    with limit_switch_interval(own_interval * 2):
        assert sys.getswitchinterval() == own_interval
