"""Reads the component `monitoring`: the dashboards' queries, and the recording and alert rules."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deploy_check.render import KUSTOMIZE

MONITORING = KUSTOMIZE / "components" / "monitoring"
_METRIC = re.compile(r"\b((?:marquee[_:]|process_|rpc_|up\b)[\w:]*)(\{[^}]*\})?")
_DURATION = re.compile(r"\b(\d+)(ms|s|m|h|d)\b")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Panel:
    """A panel of a dashboard.

    Attributes:
        dashboard: Name of the dashboard's file without its suffix.
        title: The panel's title.
        kind: Grafana's name of the visualisation, such as `stat` or `timeseries`.
        unit: Grafana's name of the unit.
        queries: The queries with their legends.
    """

    dashboard: str
    title: str
    kind: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def panels(rate_interval: str) -> list[Panel]:
    """Reads the panels of all dashboards.

    Args:
        rate_interval: Replaces Grafana's variable for the window of rates, such as `15s`.
    """
    found = []
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            queries = tuple(
                (t["expr"].replace("$__rate_interval", rate_interval), t["legendFormat"])
                for t in panel["targets"]
            )
            unit = panel["fieldConfig"]["defaults"]["unit"]
            found.append(Panel(path.stem, panel["title"], panel["type"], unit, queries))
    return found


def rules() -> dict[str, Any]:
    """Reads the rule groups, in the format of Prometheus's rule files."""
    spec: dict[str, Any] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
    return spec


def alert_rules(groups: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the alert rules of rule groups."""
    return [r for g in groups["groups"] for r in g["rules"] if "alert" in r]


def selectors(expression: str) -> list[str]:
    """Returns the series selectors of an expression: metric names with their label matchers."""
    names = _METRIC.finditer(re.sub(r"by \([^)]*\)|(on|ignoring) \([^)]*\)", "", expression))
    return sorted({f"{m[1]}{m[2] or ''}" for m in names})


def shortened(groups: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Shortens the windows and waiting times of rule groups, for a drill that takes minutes.

    Recording rules keep their names, although these no longer match their windows.

    Args:
        groups: The rule groups.
        factor: Divisor of windows and waiting times; windows become at least 5 s long, and waiting
            times (`for`) at least 1 s.
    """
    copied: dict[str, Any] = json.loads(json.dumps(groups))
    for group in copied["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(
                r"\[(\w+)\]", lambda m: f"[{_shorten(m[1], factor)}]", rule["expr"]
            )
            if "for" in rule:
                rule["for"] = _shorten(rule["for"], factor, least=1)
    return copied


def _shorten(duration: str, factor: float, least: int = 5) -> str:
    seconds = sum(int(n) * _SECONDS[unit] for n, unit in _DURATION.findall(duration))
    return f"{max(least, round(seconds / factor))}s"
