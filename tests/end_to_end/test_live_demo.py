"""The short form of `marquee demo --live`; `make demo ARGS=--live` runs the long one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.alone

LIVE = (sys.executable, "-m", "marquee.cli", "demo", "--live")


def test_the_demo_learns_and_the_ensemble_wins() -> None:
    """Feedback changes answers, the next release includes it, and the experiment has a verdict."""
    done = subprocess.run(
        [*LIVE, "--data", "sample:users=200,items=80,ratings=4000", "--models", "ease,item_cf"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"p50 \d+ ms, p99 \d+ ms", done.stdout)
    found = re.search(
        r"the ensemble wins: \+[\d.]+ likes .* \(\+([\d.]+) to \+([\d.]+)\)", done.stdout
    )
    assert found is not None
    assert 0.0 < float(found[1]) < float(found[2])
    assert re.search(r"[1-9][\d,]* acknowledged, 0 lost, 0 doubled", done.stdout)
    # 100 users rated one item, and 100 rated five, before the second release was trained.
    assert re.search(r"release \S+ holds 4,600 ratings", done.stdout)
    assert "Traceback" not in done.stderr


def test_real_ratings_are_refused() -> None:
    """A demo needs a sample, since it must know what users would think of other items."""
    done = subprocess.run(
        [*LIVE, "--data", "movielens/100k-ratings"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "--data must be a sample" in done.stderr
    assert len(done.stderr.splitlines()) == 1
