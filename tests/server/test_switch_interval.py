"""The switch interval is short while releases are loaded, and restored afterwards."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from marquee_services.server.switch_interval import short_switch_interval


def test_the_interval_is_restored_when_the_last_load_ends() -> None:
    """Loads of the standalone server's parts overlap, and end in any order."""
    own = sys.getswitchinterval()
    first, second = ExitStack(), ExitStack()
    first.enter_context(short_switch_interval())
    short = sys.getswitchinterval()
    assert short < own
    second.enter_context(short_switch_interval())
    first.close()
    assert sys.getswitchinterval() == short
    second.close()
    assert sys.getswitchinterval() == own
