"""Rules that API servers and controllers enforce beyond the schemas: values and uniqueness."""

from __future__ import annotations

import json
import re
import zoneinfo
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from deploy_check.objects import Finding, Object, Workload, where, workloads

_LABEL = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_IMAGE = re.compile(
    r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9][\w.-]*)*(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_QUANTITY = re.compile(r"\d+(\.\d+)?([eE]\d+|m|k|[KMGTPE]i|[MGTPE])?")
# The valid values of fields that are plain strings in the schemas; None means that the field is
# absent.
_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "dnsPolicy": (None, "ClusterFirst", "Default", "None", "ClusterFirstWithHostNet"),
    "imagePullPolicy": (None, "Always", "IfNotPresent", "Never"),
    "sessionAffinity": (None, "None", "ClientIP"),
    "concurrencyPolicy": (None, "Allow", "Forbid", "Replace"),
    "restartPolicy": (None, "Always", "OnFailure", "Never"),
}
_AT_LEAST_ONE = ("periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_BRACKETS = {")": "(", "]": "[", "}": "{"}


def check_api_rules(objects: list[Object]) -> list[Finding]:
    """Finds what an API server or a controller would reject although the schemas allow it."""
    findings = [Finding(where(item), what) for item in objects for what in _object(item)]
    findings += [Finding(w.where, what) for w in workloads(objects) for what in _pod(w)]
    return findings


def _object(item: Object) -> Iterator[str]:
    metadata, spec = item["metadata"], item.get("spec", {})
    if not _NAME.fullmatch(metadata["name"]):
        yield f"the name {metadata['name']!r} is not valid"
    yield from _labels(metadata)
    match item["kind"]:
        case "HorizontalPodAutoscaler":
            if spec.get("minReplicas", 1) > spec["maxReplicas"]:
                yield "minReplicas is greater than maxReplicas"
        case "ScaledObject":
            if spec.get("minReplicaCount", 0) > spec.get("maxReplicaCount", 100):
                yield "minReplicaCount is greater than maxReplicaCount"
        case "Deployment":
            rolling = spec.get("strategy", {}).get("rollingUpdate", {})
            if {str(rolling.get(f, 1)).rstrip("%") for f in ("maxSurge", "maxUnavailable")} == {
                "0"
            }:
                yield "a rollout cannot proceed: maxSurge and maxUnavailable are both 0"
        case "PersistentVolumeClaim":
            yield from _claim(spec)
        case "Service":
            yield from _choice(spec, "sessionAffinity")
            yield from _numbers(p["port"] for p in spec["ports"])
        case "CronJob":
            zone = spec.get("timeZone")
            if zone is not None and zone not in zoneinfo.available_timezones():
                yield f"the time zone {zone!r} does not exist"
            yield from _choice(spec, "concurrencyPolicy")
        case "ConfigMap":
            yield from _files(item.get("data", {}))
        case "PrometheusRule":
            rules = (rule for group in spec["groups"] for rule in group["rules"])
            for rule in rules:
                if not _is_balanced(rule["expr"]):
                    name = rule.get("alert", rule.get("record"))
                    yield f"the expression of {name} has unbalanced brackets"


def _pod(workload: Workload) -> Iterator[str]:
    pod = workload.pod
    yield from _labels(workload.spec["template"].get("metadata", {}))
    for field in ("dnsPolicy", "restartPolicy"):
        yield from _choice(pod, field)
    yield from _unique("volumes named", (v["name"] for v in pod.get("volumes", ())))
    for volume in pod.get("volumes", ()):
        yield from _quantities({"sizeLimit": (volume.get("emptyDir") or {}).get("sizeLimit", "1")})
    for template in workload.spec.get("volumeClaimTemplates", ()):
        yield from _claim(template["spec"])
    yield from _unique("containers named", (c["name"] for c in workload.containers))
    for container in workload.containers:
        yield from _container(container)


def _container(container: Object) -> Iterator[str]:
    if not _IMAGE.fullmatch(container["image"]):
        yield f"{container['image']!r} is not a valid image name"
    yield from _choice(container, "imagePullPolicy")
    yield from _unique("variables named", (e["name"] for e in container.get("env", ())))
    yield from _unique("mounts at", (m["mountPath"] for m in container.get("volumeMounts", ())))
    ports = container.get("ports", ())
    names = [p["name"] for p in ports if "name" in p]
    yield from _unique("ports named", names)
    yield from _numbers(p["containerPort"] for p in ports)
    for name in names:
        if not _PORT_NAME.fullmatch(name):
            yield f"{name!r} is not a valid port name"
    for part in ("requests", "limits"):
        yield from _quantities(container.get("resources", {}).get(part, {}))
    for probe in _PROBES:
        for field in _AT_LEAST_ONE:
            if container.get(probe, {}).get(field, 1) < 1:
                yield f"{field} of the {probe} is below 1"


def _claim(spec: Object) -> Iterator[str]:
    storage = spec.get("resources", {}).get("requests", {}).get("storage")
    if storage is None:
        yield "the claim requests no storage"
    yield from _quantities({"storage": storage or "1"})


def _labels(metadata: Object) -> Iterator[str]:
    for name, value in metadata.get("labels", {}).items():
        if not _LABEL.fullmatch(value):
            yield f"the value {value!r} of the label {name} is not valid"


def _choice(item: Object, field: str) -> Iterator[str]:
    if item.get(field) not in _CHOICES[field]:
        yield f"{item[field]!r} is not a valid value of {field}"


def _unique(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"has {count} {what} {name!r}"


def _numbers(ports: Iterable[int]) -> Iterator[str]:
    for port in ports:
        if not 0 < port < 65536:
            yield f"{port} is not a valid port number"


def _quantities(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if not _QUANTITY.fullmatch(str(value)):
            yield f"{name}: {value!r} is not a valid quantity"


def _files(data: Mapping[str, str]) -> Iterator[str]:
    for name, text in data.items():
        try:
            if name.endswith(".json"):
                json.loads(text)
            elif name.endswith((".yaml", ".yml")):
                yaml.safe_load(text)
        except (json.JSONDecodeError, yaml.YAMLError) as error:
            yield f"{name} cannot be parsed: {str(error).splitlines()[0]}"


def _is_balanced(expression: str) -> bool:
    """Returns whether all brackets outside quoted strings are balanced."""
    unclosed: list[str] = []
    for character in re.sub(r'"(\\.|[^"\\])*"', "", expression):
        if character in _BRACKETS.values():
            unclosed.append(character)
        elif character in _BRACKETS and (not unclosed or unclosed.pop() != _BRACKETS[character]):
            return False
    return not unclosed
