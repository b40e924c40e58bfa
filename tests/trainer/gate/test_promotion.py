"""Promotions go through the gate: exit codes, approval, force, audit and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from marquee_core.experiments.experiment import Arm
from marquee_core.experiments.store import ExperimentStore
from marquee_core.release.signing import generate_key
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision, Verdict, record_verdict
from marquee_services import promotion, release_commands
from marquee_services.experiment_commands import experiments
from marquee_services.release_commands import releases
from marquee_trainer.commands.promoting import write_metrics
from toy.bare_release import make_release


def gate_that_says(decision: Decision, calls: list[str]) -> promotion.Gate:
    """A gate with a fixed opinion; the real one has tests of its own."""

    def judge(store: ReleaseStore, release_id: str) -> Verdict:
        current = store.production()
        calls.append(release_id)
        check = Check("ranking", decision, "as the test says", {"difference": -0.5})
        return Verdict.of(release_id, current.release_id if current else "", "now", [check])

    return judge


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """A store with two releases, the first in production."""
    opened = ReleaseStore(str(tmp_path / "store"))
    for name in ("first", "second"):
        opened.publish(tmp_path / name, make_release(tmp_path / name, name, name))
    opened.promote("first")
    return opened


def command(store: ReleaseStore, *arguments: str) -> Result:
    """Runs `marquee releases promote`."""
    return CliRunner().invoke(releases, [f"--store={store.url}", "promote", *arguments])


@pytest.mark.parametrize(
    ("decision", "options", "promoted"),
    [
        (Decision.PROMOTE, {}, True),
        (Decision.PROMOTE, {"require_approval": True}, False),
        (Decision.PROMOTE, {"require_approval": True, "approve": True}, True),
        (Decision.ASK, {}, False),
        (Decision.ASK, {"approve": True}, True),
        (Decision.REFUSE, {}, False),
        (Decision.REFUSE, {"approve": True}, False),
        (Decision.REFUSE, {"force": True}, True),
    ],
)
def test_the_gate_decides_unless_it_is_overruled(
    store: ReleaseStore, decision: Decision, options: dict[str, Any], promoted: bool
) -> None:
    """Approval is enough for a question, and only force for a refusal. The audit says which."""
    calls: list[str] = []
    done = promotion.promote(
        store, "second", why="because", gate=gate_that_says(decision, calls), **options
    )
    production = store.production()
    assert production is not None
    assert (done.production is not None) is promoted
    assert (production.release_id == "second") is promoted
    newest = store.pointer.audit(1)[0].change
    if promoted:
        assert newest.forced is options.get("force", False)
        assert newest.why.startswith("because; the gate ")
        assert ("approved" in newest.why) is options.get("approve", False)
    else:
        assert done.decision is (Decision.REFUSE if decision is Decision.REFUSE else Decision.ASK)
    assert calls == ([] if options.get("force") else ["second"])


def test_a_refused_release_is_judged_again(store: ReleaseStore) -> None:
    """What it was refused for may have been mended since."""
    verdict = gate_that_says(Decision.REFUSE, [])(store, "second")
    record_verdict(store.storage, verdict)
    calls: list[str] = []
    gate = gate_that_says(Decision.PROMOTE, calls)
    assert promotion.judge(store, "second", gate).decision is Decision.PROMOTE
    assert calls == ["second"]


def test_the_release_in_production_needs_no_verdict(store: ReleaseStore) -> None:
    """Promoting it again makes servers that refused it try again."""
    calls: list[str] = []
    done = promotion.promote(store, "first", gate=gate_that_says(Decision.REFUSE, calls))
    assert done.production is not None
    assert not calls


def test_the_command_promotes_nothing_that_cannot_be_served(store: ReleaseStore) -> None:
    """Only force overrules that, and the audit says so."""
    refused = command(store, "second")
    assert refused.exit_code == 1, refused.output
    forced = command(store, "second", "--force", "--by", "me")
    assert (forced.exit_code, forced.output) == (0, "second is in production\n")
    change = store.pointer.audit(1)[0].change
    assert (change.forced, change.by, change.why) == (True, "me", "the gate was passed over")
    missing = command(store, "third")
    assert missing.exit_code == 1
    assert "no release" in missing.output


def test_a_recorded_verdict_is_used_where_there_is_no_gate(
    store: ReleaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer judged the release; servers' images have no trainer to judge it again."""
    monkeypatch.setattr(promotion, "_installed_gate", lambda: None)
    # A release of two files cannot be served.
    monkeypatch.setattr(release_commands, "verify", lambda *_: None)
    unseen = command(store, "second")
    assert unseen.exit_code == 1
    assert "--force" in unseen.output
    asked = gate_that_says(Decision.ASK, [])(store, "second")
    record_verdict(store.storage, asked)
    assert command(store, "second").exit_code == 4
    assert command(store, "second", "--approve").exit_code == 0
    # It was against another release than the one that is in production now.
    store.promote("first")
    store.rollback()
    record_verdict(store.storage, Verdict.of("first", "other", "now", asked.checks))
    assert command(store, "first").exit_code == 1


def test_an_arm_is_promoted_as_any_release_is(
    store: ReleaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every promotion must be approved, and where releases must be signed."""
    arms = [Arm("control", "first", 50.0), Arm("candidate", "second", 50.0)]
    ExperimentStore(store).create("running", arms)
    record_verdict(store.storage, gate_that_says(Decision.PROMOTE, [])(store, "second"))
    public, _ = generate_key(tmp_path / "key")

    def promote_arm(*options: str) -> Result:
        return CliRunner().invoke(
            experiments, ["--store", store.url, "promote", "candidate", *options]
        )

    monkeypatch.setenv("MARQUEE_TRUSTED_KEYS", str(public))
    unsigned = promote_arm("--force")
    assert unsigned.exit_code == 1
    assert "is not signed" in unsigned.stderr
    monkeypatch.delenv("MARQUEE_TRUSTED_KEYS")
    monkeypatch.setenv("MARQUEE_REQUIRE_APPROVAL", "true")
    assert promote_arm().exit_code == 4
    assert promote_arm("--approve").exit_code == 0


def test_monitoring_sees_the_verdict(store: ReleaseStore, tmp_path: Path) -> None:
    """As a file in Prometheus' text format, which is replaced as a whole."""
    path = tmp_path / "gate.prom"
    for decision in (Decision.PROMOTE, Decision.REFUSE):
        write_metrics(path, gate_that_says(decision, [])(store, "second"))
    text = path.read_text()
    assert 'marquee_gate_decision{decision="refuse"} 1.0' in text
    assert 'marquee_gate_decision{decision="promote"} 0.0' in text
    assert 'marquee_gate_check{check="ranking"} 2.0' in text
    assert 'marquee_gate_figure{check="ranking",figure="difference"} -0.5' in text
    assert 'release_id="second"' in text
    assert [p.name for p in tmp_path.glob(".partial*")] == []
