"""The comparison of two Ray workers with one."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench_scale.workers import main

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]


def test_a_training_is_timed_with_one_worker_and_with_two() -> None:
    """The table has a row for each number of workers, and its phases add up to the total."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    data = "sample:users=120,items=80,ratings=4000"
    result = CliRunner().invoke(main, ["--data", data, "--models", "ease,item_cf"])
    assert result.exit_code == 0, result.output
    rows = [
        line.split()
        for line in result.stdout.splitlines()
        if line[:10].split()[:1] in (["1"], ["2"])
    ]
    assert len(rows) == 2
    for row in rows:
        before, fits, after, total = map(float, row[1:])
        assert min(before, fits, after) > 0
        assert before + fits + after == pytest.approx(total, abs=0.2)
    assert "target >= 1.6" in result.stdout
