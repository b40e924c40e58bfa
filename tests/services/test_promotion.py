"""Promotions through the gate: exit codes, approval, force, audit and metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from marquee_core.experiments.experiment import Arm
from marquee_core.experiments.store import ExperimentStore
from marquee_core.release.derive import DERIVED
from marquee_core.release.signing import generate_key
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_core.release.verdicts import latest_verdict, record_verdict
from marquee_core.service_names import CF
from marquee_services import promotion
from marquee_services.commands.experiments import experiments
from marquee_services.commands.releases import releases
from marquee_services.standalone.verification import Verification
from marquee_trainer.commands.promotion import write_metrics
from toy.bare_release import make_release
from toy.release import publish_toy


def gate_with(decision: Decision, calls: list[str]) -> promotion.Gate:
    """Return a gate with a fixed decision; the real one has separate tests."""

    def judge(store: ReleaseStore, release_id: str, _candidates: ReleaseStore) -> Verdict:
        calls.append(release_id)
        return verdict_on(store, release_id, decision)

    return judge


def verdict_on(store: ReleaseStore, release_id: str, decision: Decision) -> Verdict:
    """Return a verdict against the release in production."""
    current = store.production()
    check = Check("ranking", decision, "as the test says", {"difference": -0.5})
    production_id = current.release_id if current else ""
    return Verdict.of(release_id, production_id, "2026-01-01T00:00:00+00:00", [check])


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """A store with two releases, the first of which is in production."""
    opened = ReleaseStore(str(tmp_path / "store"))
    for name in ("first", "second"):
        opened.publish(tmp_path / name, make_release(tmp_path / name, name, name))
    opened.promote("first")
    return opened


@pytest.fixture
def servable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let releases of two files, which no server can load, pass the verification."""
    found = Verification("second", 2, 1, 0)
    monkeypatch.setattr(promotion, "verify", lambda *_: found)


def command(store: ReleaseStore, *arguments: str) -> Result:
    """Run `marquee releases promote`."""
    return CliRunner().invoke(releases, [f"--store={store.url}", "promote", *arguments])


@pytest.mark.usefixtures("servable")
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
def test_the_gate_decides_unless_it_is_overridden(
    store: ReleaseStore, decision: Decision, options: dict[str, Any], promoted: bool
) -> None:
    """Approval settles a question, only force overrides a refusal, and the audit records it."""
    calls: list[str] = []
    done = promotion.promote(
        store, "second", why="because", gate=gate_with(decision, calls), **options
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


@pytest.mark.usefixtures("servable")
def test_a_refused_release_is_judged_again(store: ReleaseStore) -> None:
    """The cause of the refusal may have been fixed since."""
    record_verdict(store.storage, verdict_on(store, "second", Decision.REFUSE))
    calls: list[str] = []
    gate = gate_with(Decision.PROMOTE, calls)
    assert promotion.judge(store, "second", gate=gate).decision is Decision.PROMOTE
    assert calls == ["second"]
    newest = latest_verdict(store.storage, store.manifest("second"))
    assert newest is not None
    assert newest.decision is Decision.PROMOTE
    # It is not judged a third time.
    assert promotion.judge(store, "second", gate=gate) == newest
    assert calls == ["second"]


@pytest.mark.usefixtures("servable")
def test_a_verdict_from_publication_is_used_while_production_is_unchanged(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """It is in the manifest, and is ignored if another release has been promoted since."""
    calls: list[str] = []
    gate = gate_with(Decision.REFUSE, calls)
    agreed = verdict_on(store, "third", Decision.PROMOTE)
    manifest = replace(make_release(tmp_path / "third", "third", "third"), gate=agreed)
    store.publish(tmp_path / "third", manifest)
    assert store.manifest("third").gate == agreed
    assert promotion.judge(store, "third", gate=gate) == agreed
    store.promote("second")
    done = promotion.promote(store, "third", verdict=agreed, gate=gate)
    assert (done.production, done.decision, calls) == (None, Decision.REFUSE, ["third"])
    shown = CliRunner().invoke(releases, [f"--store={store.url}", "show", "--json", "third"])
    summary = json.loads(shown.stdout)
    assert summary["gate"]["decision"] == "promote"
    assert summary["later_verdicts"][-1]["decision"] == "refuse"


def test_the_release_in_production_needs_no_verdict(store: ReleaseStore) -> None:
    """Promoting it again makes servers that refused it try again."""
    calls: list[str] = []
    done = promotion.promote(store, "first", gate=gate_with(Decision.REFUSE, calls))
    assert done.production is not None
    assert not calls


def test_a_release_that_cannot_be_served_is_not_promoted(store: ReleaseStore) -> None:
    """Only force overrides the verification, and the audit records it."""
    refused = command(store, "second")
    assert refused.exit_code == 3, refused.output
    assert "refuse   servers" in refused.output
    forced = command(store, "second", "--force", "--by", "me")
    assert (forced.exit_code, forced.output) == (0, "second is in production\n")
    change = store.pointer.audit(1)[0].change
    assert (change.forced, change.by, change.why) == (True, "me", "the gate was bypassed")
    missing = command(store, "third")
    assert missing.exit_code == 1
    assert "no release" in missing.output


@pytest.mark.usefixtures("servable")
def test_a_recorded_verdict_is_used_without_a_gate(
    store: ReleaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer judged the release, since the images of servers cannot judge it again."""
    monkeypatch.setattr(promotion, "_installed_gate", lambda: None)
    unseen = command(store, "second")
    assert unseen.exit_code == 1
    assert "--force" in unseen.output
    asked = verdict_on(store, "second", Decision.ASK)
    record_verdict(store.storage, asked)
    assert command(store, "second").exit_code == 4
    assert command(store, "second", "--approve").exit_code == 0
    # The verdict was against a release that is no longer in production.
    store.promote("first")
    store.rollback()
    record_verdict(store.storage, Verdict.of("first", "other", asked.at, asked.checks))
    assert command(store, "first").exit_code == 1


@pytest.mark.usefixtures("servable")
def test_an_arm_is_promoted_like_any_release(
    store: ReleaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes required approvals and required signatures."""
    arms = [Arm("control", "first", 50.0), Arm("candidate", "second", 50.0)]
    ExperimentStore(store).create("running", arms)
    record_verdict(store.storage, verdict_on(store, "second", Decision.PROMOTE))
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


def test_an_arm_with_other_ranking_weights_is_promoted_as_a_new_release(
    tmp_path: Path,
) -> None:
    """Approval is required; until then nothing is published, and the experiment continues."""
    store = ReleaseStore(str(tmp_path / "store"))
    source = publish_toy(store, tmp_path / "made", backends=(CF,), servable=True).release_id
    store.promote(source)
    arms = [Arm("control", source, 50.0), Arm("popular", source, 50.0, {"popularity": 1.0})]
    ExperimentStore(store).create("running", arms)

    def promote_arm(*options: str) -> Result:
        return CliRunner().invoke(
            experiments, ["--store", store.url, "promote", "popular", *options]
        )

    asked = promote_arm()
    assert asked.exit_code == 4, asked.output
    assert "promote  servers" in asked.output
    assert "arm popular of experiment running" in asked.output
    assert store.ids() == [source]
    assert ExperimentStore(store).find().is_running
    approved = promote_arm("--approve")
    assert approved.exit_code == 0, approved.output
    production = store.production()
    assert production is not None
    manifest = store.manifest(production.release_id)
    assert manifest.evaluation[DERIVED]["release_id"] == source
    assert manifest.gate is not None
    assert manifest.gate.decision is Decision.ASK
    assert "approved" in production.change.why
    assert ExperimentStore(store).find().outcome == "promoted popular"


def test_the_verdict_is_exported_to_monitoring(store: ReleaseStore, tmp_path: Path) -> None:
    """The verdict is in a file in Prometheus' text format, which is replaced atomically."""
    path = tmp_path / "gate.prom"
    for decision in (Decision.PROMOTE, Decision.REFUSE):
        write_metrics(path, verdict_on(store, "second", decision))
    text = path.read_text()
    assert 'marquee_gate_decision{decision="refuse"} 1.0' in text
    assert 'marquee_gate_decision{decision="promote"} 0.0' in text
    assert 'marquee_gate_check{check="ranking"} 2.0' in text
    assert 'marquee_gate_figure{check="ranking",figure="difference"} -0.5' in text
    assert 'release_id="second"' in text
    assert [p.name for p in tmp_path.glob(".partial*")] == []
