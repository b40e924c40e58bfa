"""Checks of ratings before training: repeats, unknown items, times, spread, drops and drift."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision
from marquee_trainer.commands.cli import train
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.item_metadata import ItemMetadata
from marquee_trainer.gate.inputs import InputLimits, input_checks, summary_of
from toy.release import publish_toy

DETAILS = {f"i{n}": ItemMetadata(f"Film {n}", 2000) for n in range(30)}


def ratings(**changes: Any) -> RatingsDataset:
    """Return ratings of 40 users and 30 items, a quarter of all pairs."""
    random = np.random.default_rng(0)
    pairs = np.argwhere(random.random((40, 30)) < 0.25)
    columns: dict[str, Any] = {
        "users": [f"u{user}" for user in pairs[:, 0]],
        "items": [f"i{item}" for item in pairs[:, 1]],
        "ratings": random.integers(1, 6, len(pairs)).astype(np.float32),
        "timestamps": np.arange(len(pairs)),
    }
    columns |= changes
    return RatingsDataset.of(
        columns["users"],
        columns["items"],
        columns["ratings"],
        columns["timestamps"],
        DETAILS,
        "test",
        on_repeat="last",
    )


def found(dataset: RatingsDataset, before: RatingsDataset | None = None) -> dict[str, Check]:
    """Return the checks by name."""
    summary = None if before is None else summary_of(before)
    return {check.name: check for check in input_checks(dataset, InputLimits(), summary)}


def failed(checks: dict[str, Check], decision: Decision = Decision.REFUSE) -> set[str]:
    """Return the names of the checks with this decision."""
    return {name for name, check in checks.items() if check.decision is decision}


def test_sound_ratings_pass() -> None:
    """Every check passes."""
    checks = found(ratings(), ratings())
    assert {check.decision for check in checks.values()} == {Decision.PROMOTE}
    assert checks.keys() == {
        *("repeats", "unknown items", "times", "spread of ratings", "counts", "distribution")
    }


def test_each_fault_is_detected() -> None:
    """A specific check finds each fault, and reports its extent."""
    plain = ratings()
    users = plain.user_ids.ids(plain.users)
    items = plain.catalogue.items.ids(plain.items)
    count = len(plain)
    repeated = ratings(
        users=users * 3,
        items=items * 3,
        ratings=np.tile(plain.ratings, 3),
        timestamps=np.arange(3 * count),
    )
    assert failed(found(repeated)) == {"repeats"}
    assert f"{2 * count:,} of {3 * count:,} rows" in found(repeated)["repeats"].text
    strange = ratings(items=[f"x{item}" if n % 4 == 0 else item for n, item in enumerate(items)])
    assert failed(found(strange)) == {"unknown items"}
    future = ratings(timestamps=np.full(count, int(time.time()) + 10**6))
    assert failed(found(future)) == {"times"}
    equal = np.full(count, 4.0, np.float32)
    equal[0] = 1.0
    assert failed(found(ratings(ratings=equal))) == {"spread of ratings"}


def test_sudden_drops_and_drift_are_detected() -> None:
    """Losing a third since the previous release is suspicious, and more than half an error."""
    plain = ratings()
    names, items = plain.user_ids.ids(plain.users), plain.catalogue.items.ids(plain.items)

    def part(share: float) -> RatingsDataset:
        kept = int(share * len(plain))
        return ratings(
            users=names[:kept],
            items=items[:kept],
            ratings=plain.ratings[:kept],
            timestamps=np.arange(kept),
        )

    assert failed(found(part(0.66), plain), Decision.ASK) == {"counts"}
    assert failed(found(part(0.4), plain)) == {"counts"}
    turned = ratings(ratings=np.where(plain.ratings > 2, 1, 5).astype(np.float32))
    assert "distribution" in failed(found(turned, plain), Decision.ASK)
    doubled = ratings(ratings=(plain.ratings * 2).astype(np.float32))
    assert "scale" in failed(found(doubled, plain), Decision.ASK)


def test_the_command_does_not_train_on_ratings_that_fail(tmp_path: Path) -> None:
    """The exit code is 3, and the report says which check failed."""
    store = ReleaseStore(str(tmp_path / "store"))
    # It has 40 users, 120 items and over 1,000 ratings.
    store.promote(publish_toy(store, tmp_path / "made").release_id)
    lines = ["user,item,rating"]
    lines += [f"u{n % 40},i{n % 31},{1 + n % 5}" for n in range(400)]
    data = tmp_path / "ratings.csv"
    data.write_text("\n".join(lines))
    result = CliRunner().invoke(train, [f"--data={data}", f"--store={store.url}"])
    assert result.exit_code == 3, result.output
    assert "failed  counts" in result.stdout
    assert "nothing was trained" in result.stderr
    assert "train into a separate store: --store FOLDER" in result.stderr
    assert len(store.ids()) == 1


@pytest.mark.parametrize("drop", ["--max-drop=0.9", "--no-check-input"])
def test_thresholds_can_be_set(tmp_path: Path, drop: str) -> None:
    """An expected change need not stop the training."""
    store = ReleaseStore(str(tmp_path / "store"))
    store.promote(publish_toy(store, tmp_path / "made").release_id)
    data = tmp_path / "ratings.csv"
    lines = [f"u{n % 40},i{n % 31},{1 + n % 5}" for n in range(400)]
    data.write_text("\n".join(["user,item,rating", *lines]))
    arguments = [f"--data={data}", f"--store={store.url}", drop, "--models=unknown"]
    result = CliRunner().invoke(train, arguments)
    # The checks passed, and the selection of models fails.
    assert result.exit_code == 1
    assert "there is no model" in result.stderr
