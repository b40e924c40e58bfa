"""Alerts and dashboards are valid, complete and documented in the runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from locations import PROJECT
from observe.faults import FAULTS
from observe.monitoring import alert_rules, panels, rules, selectors
from observe.prometheus import program

RUNBOOK = PROJECT / "deploy" / "RUNBOOK.md"
CASES = sorted(Path(__file__).parent.glob("*rules_test.yaml"))


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(cases: Path, tmp_path: Path) -> None:
    """promtool's unit tests of the alerts pass."""
    promtool = program("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian's package `prometheus`)")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    text = cases.read_text()
    # Groups that are not listed are evaluated in no particular order.
    groups = [group["name"] for group in rules()["groups"]]
    assert yaml.safe_load(text)["group_eval_order"] == groups
    (tmp_path / "cases.yaml").write_text(text.replace("RULES", "rules.yaml"))
    tested = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "cases.yaml")], capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_cases() -> None:
    """Each alert has promtool cases in which it fires and cases in which it does not."""
    fires, stays = set[str](), set[str]()
    for path in CASES:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                (fires if case["exp_alerts"] else stays).add(case["alertname"])
    assert fires == stays == {rule["alert"] for rule in alert_rules(rules())}


def test_every_alert_has_a_runbook_entry() -> None:
    """Each alert links to its entry, and the runbook has no entry for an alert that is gone."""
    headings = re.findall(r"^## (Marquee\w+)$", RUNBOOK.read_text(), re.M)
    for rule in alert_rules(rules()):
        assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"
    assert sorted(headings) == sorted(rule["alert"] for rule in alert_rules(rules()))


def test_the_drill_causes_every_alert() -> None:
    """Every alert has a fault in the drill that makes it fire."""
    caused = {alert for fault in FAULTS for alert in fault.alerts}
    assert caused == {rule["alert"] for rule in alert_rules(rules())}


def test_runbook_entries_are_complete() -> None:
    """Each has a symptom, three commands, a mitigation and when it is resolved, or a reference."""
    for entry in re.split(r"^## ", RUNBOOK.read_text(), flags=re.M)[2:]:
        if "more slowly" in entry:
            continue
        commands = re.search(r"```sh\n(.*?)```", entry, re.S)
        assert commands is not None
        assert len(commands[1].strip().splitlines()) == 3, entry
        for part in ("**Symptom.**", "**Mitigate.**", "**Resolved when**"):
            assert part in entry


def test_alerts_have_a_severity_and_a_summary() -> None:
    """Each alert pages or opens a ticket, and describes what it found."""
    for rule in alert_rules(rules()):
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert selectors(rule["expr"])


def test_dashboards_are_complete() -> None:
    """The six dashboards have panels with titles, units and queries."""
    found = panels("1m")
    names = {panel.dashboard for panel in found}
    assert names == {
        "overview",
        "latency-by-hop",
        "degradation",
        "release-and-quality",
        "caches",
        "capacity",
    }
    for panel in found:
        assert panel.title
        assert panel.unit
        assert panel.queries
