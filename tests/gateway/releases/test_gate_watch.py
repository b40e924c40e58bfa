"""A gateway reports when the gate keeps the newest release out of production."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_core.release.verdicts import record_verdict
from marquee_services.gateway.releases.gate_watch import GateWatch
from toy.release import publish_toy

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """A store whose release in production was allowed by the gate."""
    found = ReleaseStore(str(tmp_path / "store"))
    judge(found, publish(found, tmp_path, 1), Decision.PROMOTE)
    found.promote(found.ids()[0])
    return found


def publish(store: ReleaseStore, folder: Path, day: int) -> str:
    """Publish a release of a given day."""
    made = folder / f"made-{day}"
    return publish_toy(store, made, day, _NOW + timedelta(days=day)).release_id


def judge(store: ReleaseStore, release_id: str, decision: Decision) -> None:
    """Record a verdict of the gate."""
    checks = [Check("ranking", decision, "found")]
    record_verdict(store.storage, Verdict.of(release_id, "", _NOW.isoformat(), checks))


def read(store: ReleaseStore) -> dict[tuple[str, str], float]:
    """Return the values of the metric by release and decision."""
    watch = GateWatch(store)
    watch.read()
    return {
        (sample.labels["release_id"], sample.labels["decision"]): sample.value
        for metric in watch.metrics()
        for sample in metric.samples
    }


def test_an_empty_store_has_no_samples(tmp_path: Path) -> None:
    """The metric has no samples if the store is empty."""
    assert read(ReleaseStore(str(tmp_path / "store"))) == {}


def test_a_release_without_a_verdict_is_not_held_back(store: ReleaseStore, tmp_path: Path) -> None:
    """A release may be published without the gate, for example for an experiment."""
    assert read(store) == {(store.ids()[0], "promote"): 0.0}
    newer = publish(store, tmp_path, 2)
    assert read(store) == {(newer, "none"): 0.0}


@pytest.mark.parametrize("decision", [Decision.ASK, Decision.REFUSE])
def test_a_newer_release_is_held_back(
    store: ReleaseStore, tmp_path: Path, decision: Decision
) -> None:
    """The metric is set until the release is promoted nevertheless."""
    newer = publish(store, tmp_path, 2)
    judge(store, newer, decision)
    assert read(store) == {(newer, decision.value): 1.0}
    store.promote(newer, forced=True)
    assert read(store) == {(newer, decision.value): 0.0}


def test_the_latest_verdict_counts(store: ReleaseStore, tmp_path: Path) -> None:
    """A release may be judged again, and another one may be trained after it."""
    first = publish(store, tmp_path, 2)
    judge(store, first, Decision.REFUSE)
    judge(store, first, Decision.PROMOTE)
    assert read(store) == {(first, "promote"): 0.0}
    second = publish(store, tmp_path, 3)
    judge(store, first, Decision.REFUSE)
    judge(store, second, Decision.PROMOTE)
    assert read(store) == {(second, "promote"): 0.0}
