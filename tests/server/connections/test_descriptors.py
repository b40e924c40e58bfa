"""The limit of connections reserves file descriptors for the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from marquee_services.server.connections.descriptors import RESERVE, connections_within

_SCRIPT = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from marquee_services.server.connections.descriptors import limit_connections
print(limit_connections({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("descriptors", "wanted", "allowed"),
    [
        (20_000, 8_192, 8_192),
        (8_192 + RESERVE, 8_192, 8_192),
        (4_096, 8_192, 4_096 - RESERVE),
        (256, 8_192, 128),
        (2, 8_192, 1),
    ],
)
def test_some_descriptors_are_reserved(descriptors: int, wanted: int, allowed: int) -> None:
    """However few descriptors there are, connections get at least half of them."""
    assert connections_within(descriptors, wanted) == allowed


def test_the_limit_of_descriptors_is_raised_as_far_as_needed() -> None:
    """The soft limit is raised to what the connections need, but not above the hard limit."""
    for soft, hard, wanted, expected in (
        (256, 2_000, 1_000, f"1000 {1_000 + RESERVE}"),
        (256, 1_024, 1_000, f"{1_024 - RESERVE} 1024"),
        (1_900, 2_000, 1_000, "1000 1900"),
    ):
        script = _SCRIPT.format(soft=soft, hard=hard, wanted=wanted)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == expected, done.stderr
