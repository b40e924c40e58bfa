"""Checks that monitoring and autoscaling read exposed metrics, and that traces are received."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from deploy_check.objects import (
    Finding,
    Object,
    Workload,
    kinds,
    port_number,
    selects,
    where,
    workloads,
)
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from observe.metric_names import AFTER_AN_ANSWER, AT_START, EVENTUALLY, OVERLOAD_PROXY
from observe.monitoring import selectors

_SERVERS = (GATEWAY, CF, INFERENCE)
# The suffixes of histograms and summaries, which have one name in the lists of metrics.
_PARTS = re.compile(r"_(bucket|count|sum)$")
_SERVICE = re.compile(r'service="(\w+)"')
_NAME_LABEL = "__meta_kubernetes_pod_label_app_kubernetes_io_name"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def check_monitoring(objects: list[Object]) -> list[Finding]:
    """Finds servers that are not scraped, queries without data, and unreachable collectors."""
    found = workloads(objects)
    return [
        *_monitors(objects, found),
        *_rules(objects),
        *_triggers(objects),
        *_dashboards(objects),
        *_collectors(objects, found),
    ]


def _monitors(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    """Checks that a PodMonitor sets the label `service`, which rules and dashboards use."""
    for monitor in kinds(objects, "PodMonitor").values():
        spec = monitor["spec"]
        if all(endpoint["port"] != "metrics" for endpoint in spec["podMetricsEndpoints"]):
            continue  # It scrapes a sidecar.
        for server in _SERVERS:
            pods = [w for w in found if w.name == f"marquee-{server}"]
            if not all(selects(spec["selector"], w.labels) for w in pods):
                yield Finding(where(monitor), f"does not select {server}")
            for workload in pods:
                name = workload.labels.get("app.kubernetes.io/name", "")
                for endpoint in spec["podMetricsEndpoints"]:
                    if _service_label(endpoint, name) != server:
                        yield Finding(where(monitor), f"does not set the label service to {server}")


def _service_label(endpoint: Object, name: str) -> str:
    """Returns the label `service` that an endpoint sets for pods with a name; empty for none."""
    label = ""
    for rule in endpoint.get("relabelings", ()):
        if rule.get("targetLabel") == "service" and rule.get("sourceLabels") == [_NAME_LABEL]:
            matched = re.fullmatch(rule.get("regex", "(.*)"), name)
            if matched:
                label = matched.expand(rule.get("replacement", "$1").replace("$1", r"\1"))
    return label


def _rules(objects: list[Object]) -> Iterator[Finding]:
    for item in kinds(objects, "PrometheusRule").values():
        rules = [rule for group in item["spec"]["groups"] for rule in group["rules"]]
        records = {rule["record"] for rule in rules if "record" in rule}
        for rule in rules:
            for name in _unknown(rule["expr"], records):
                which = rule.get("alert", rule.get("record"))
                yield Finding(where(item), f"{which} reads {name}, which no server exposes")


def _triggers(objects: list[Object]) -> Iterator[Finding]:
    for item in kinds(objects, "ScaledObject").values():
        target = item["spec"]["scaleTargetRef"]["name"]
        for trigger in item["spec"]["triggers"]:
            query = trigger["metadata"].get("query", "")
            for name in _unknown(query, set()):
                yield Finding(where(item), f"scales by {name}, which no server exposes")
            for service in _SERVICE.findall(query):
                if f"marquee-{service}" != target:
                    yield Finding(where(item), f"scales {target} by the metrics of {service}")


def _unknown(expression: str, records: set[str]) -> Iterator[str]:
    listed = set().union(*AT_START.values(), *AFTER_AN_ANSWER.values(), EVENTUALLY)
    known = {_PARTS.sub("", name) for name in listed} | records | OVERLOAD_PROXY
    for selector in selectors(expression):
        name = selector.partition("{")[0]
        if _PARTS.sub("", name) not in known:
            yield name


def _dashboards(objects: list[Object]) -> Iterator[Finding]:
    for item in kinds(objects, "ConfigMap").values():
        is_dashboard = any(name.endswith(".json") for name in item.get("data", {}))
        if is_dashboard and not item["metadata"].get("labels", {}).get("grafana_dashboard"):
            yield Finding(
                where(item), "Grafana does not load it: the label grafana_dashboard is missing"
            )


def _collectors(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    """Checks that a collector listens on its container's ports and configures its pipelines."""
    configs = kinds(objects, "ConfigMap")
    for workload in found:
        for volume in workload.pod.get("volumes", ()):
            config = configs.get(volume.get("configMap", {}).get("name", ""), {})
            text = config.get("data", {}).get("config.yaml")
            if text:
                for problem in _collector(workload, yaml.safe_load(text)):
                    yield Finding(workload.where, problem)


def _collector(workload: Workload, config: Any) -> Iterator[str]:
    endpoints = [
        *(p["endpoint"] for r in config["receivers"].values() for p in r["protocols"].values()),
        *(e["endpoint"] for e in config.get("extensions", {}).values()),
    ]
    listening = set()
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        listening.add(int(port))
        if host in _LOOPBACK:
            yield f"listens on {endpoint}, which other pods cannot reach"
        elif all(port_number(c, int(port)) is None for c in workload.containers):
            yield f"listens on {endpoint}, which is not a port of its container"
    for container in workload.containers:
        for port in container.get("ports", ()):
            if port["containerPort"] not in listening:
                yield f"does not listen on the port {port['containerPort']} of its container"
    for name, pipeline in config["service"]["pipelines"].items():
        for part in ("receivers", "processors", "exporters"):
            for missing in sorted({*pipeline.get(part, ())} - config.get(part, {}).keys()):
                yield f"the {part[:-1]} {missing} of the pipeline {name} is not configured"
