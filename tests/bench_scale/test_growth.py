"""The growth table has correct exponents and verdicts, and runs can be resumed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench_scale.__main__ import main
from bench_scale.growth import expected_cost, exponent, table, verdict
from bench_scale.limited import NotMeasuredError, run_module
from bench_scale.ratings import SIZES, SyntheticRatings
from bench_scale.results import Results


@pytest.mark.parametrize("power", [0.8, 1.0, 2.0])
def test_the_exponent_is_that_of_a_power_law(power: float) -> None:
    """Costs c · ratings^p have the exponent p for any c and any sizes in between."""
    costs = {size: 3.0 * size**power for size in (1_000, 20_000, 50_000)}
    assert exponent(costs) == pytest.approx(power)
    assert math.isnan(exponent({1_000: 3.0}))


def test_verdicts_say_whether_the_target_is_met() -> None:
    """A missing size makes a verdict preliminary; a missing exponent means not measured."""
    assert [verdict(1.15, True), verdict(1.16, True)] == ["met", "missed"]
    assert verdict(1.0, False) == "met so far"
    assert verdict(math.nan, False) == "not measured"


def test_the_expected_cost_follows_the_growth_so_far() -> None:
    """Two sizes determine the exponent; with one, slightly superlinear growth is assumed."""
    quadratic = {100: 1.0, 1_000: 100.0}
    assert expected_cost(quadratic, 10_000) == pytest.approx(10_000.0)
    one = expected_cost({100: 1.0}, 1_000)
    assert one is not None
    assert 10.0 < one < 20.0
    assert expected_cost({}, 1_000) is None
    assert expected_cost({5_000: 1.0}, 1_000) is None


def test_the_table_has_blanks_for_missing_measurements() -> None:
    """A row has a cell for each size, empty where nothing was measured."""
    _, rows = table({"mf": {1_000_000: 2.0}}, [1_000_000, 3_000_000], "s")
    assert rows == [["mf", "2", "", "", "<= 1.15", "not measured"]]


def test_synthetic_ratings_have_the_size_and_a_long_tail(tmp_path: Path) -> None:
    """The number of distinct pairs is exact, and saving and loading preserves the ratings."""
    size = SIZES["0.03"]
    ratings = SyntheticRatings.draw(size, 1)
    cells = ratings.users.astype(np.int64) * size.items + ratings.items
    assert len(np.unique(cells)) == size.ratings
    counts = np.sort(np.bincount(ratings.items, minlength=size.items))
    assert counts[-size.items // 10 :].sum() > 0.3 * size.ratings
    ratings.save(tmp_path / "ratings.npy")
    again = SyntheticRatings.load(tmp_path / "ratings.npy", size)
    np.testing.assert_array_equal(again.stars, ratings.stars)


def test_a_run_measures_what_is_missing_and_prints_the_table(tmp_path: Path) -> None:
    """Earlier measurements are not repeated, and nothing is measured without time."""
    results = Results(tmp_path / "results.json")
    results.add("item_cf", "0.03", {"cpu_s": 50.0, "peak_gb": 1.5})
    arguments = ["--sizes", "0.03,0.01", "--subjects", "item_cf", "--folder", str(tmp_path)]
    first = CliRunner().invoke(main, [*arguments, "--minutes", "5"], catch_exceptions=False)
    found = Results.load(results.path).found["item_cf"]
    assert found["0.03"]["cpu_s"] == 50.0
    assert 0 < found["0.01"]["cpu_s"] < 50
    assert found["0.01"]["peak_gb"] > 0
    again = CliRunner().invoke(main, [*arguments, "--minutes", "0"], catch_exceptions=False)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    row = next(line for line in first.stdout.splitlines() if line.startswith("item_cf"))
    assert row.split()[-1] == "missed"


def test_a_run_names_every_measurement_that_is_missing(tmp_path: Path) -> None:
    """A subject without any measurement has a row too, and a line says why it was not measured."""
    arguments = ["--sizes", "0.01", "--subjects", "mf", "--folder", str(tmp_path)]
    run = CliRunner().invoke(main, [*arguments, "--minutes", "0"], catch_exceptions=False)
    row = next(line for line in run.stdout.splitlines() if line.startswith("mf "))
    assert row.split()[-2:] == ["not", "measured"]
    assert "not measured: mf at 0.01 M: skipped, 0.0 min were left" in run.stdout


@pytest.mark.parametrize(
    ("code", "seconds", "reason"),
    [
        ("raise SystemExit('no such column')", 60.0, "failed with exit code 1: no such column"),
        ("import time; time.sleep(60)", 0.1, "stopped after 0.0 min"),
        ("import time; x = b'1' * 200_000_000; time.sleep(60)", 60.0, "above 0.1 GB of memory"),
    ],
)
def test_a_measurement_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, seconds: float, reason: str
) -> None:
    """Neither an error nor a limit ends the run: it becomes the reason of a missing measurement."""
    (tmp_path / "measured_module.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(NotMeasuredError, match=reason):
        run_module(["measured_module"], seconds, 0.1)
