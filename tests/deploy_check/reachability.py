"""Checks that Services and network policies allow the connections that the processes need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from deploy_check.objects import (
    Finding,
    Object,
    Workload,
    kinds,
    port_names,
    port_number,
    selects,
    variables,
    workloads,
)
from marquee_core.service_names import CF, GATEWAY, INFERENCE

_DNS_PORT, _HTTPS_PORT = 53, 443
_DATABASE = ("marquee-postgres", 5432)
_PEERS = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}


def check_reachability(objects: list[Object]) -> list[Finding]:
    """Finds required connections that have no Service or that a network policy blocks.

    Also finds backends that no network policy protects.
    """
    findings = [
        Finding(w.where, what)
        for w in workloads(objects)
        for what in (*_out(objects, w), *_outside(objects, w), *_in(objects, w))
    ]
    for backend in (CF, INFERENCE):
        name = f"marquee-{backend}"
        findings += [
            Finding(workload.where, "any pod in the cluster may call it: no network policy applies")
            for workload in workloads(objects)
            if workload.name == name and not _policies(objects, workload, "Ingress")
        ]
    return findings


def _out(objects: list[Object], workload: Workload) -> Iterator[str]:
    egress = _policies(objects, workload, "Egress")
    dns = {
        port.get("protocol", "TCP")
        for policy in egress
        for rule in policy["spec"].get("egress", ())
        for port in rule.get("ports", ())
        if port.get("port") == _DNS_PORT
    }
    if egress and dns != {"UDP", "TCP"}:
        yield "cannot resolve names: no network policy allows port 53 over UDP and TCP"
    for what, (host, port) in _targets(workload).items():
        service = kinds(objects, "Service").get(host)
        numbers: dict[int, str | int] = {}
        for item in _ports(service):
            numbers[item["port"]] = item.get("targetPort") or item["port"]
        if service is None or port not in numbers:
            yield f"{what} is {host}:{port}, which no Service provides"
            continue
        for other in workloads(objects):
            if selects(service["spec"]["selector"], other.labels):
                yield from _between(objects, workload, other, numbers[port])
    if _uses_database(workload):
        for other in workloads(objects):
            if other.name == _DATABASE[0]:
                yield from _between(objects, workload, other, _DATABASE[1])


def _between(
    objects: list[Object], workload: Workload, other: Workload, port: str | int
) -> Iterator[str]:
    """Checks that policies allow a workload to connect to a port of another."""
    pods = [n for c in other.containers if (n := port_number(c, port))]
    for direction, source, peer in (("Egress", workload, other), ("Ingress", other, workload)):
        if pods and not _allows(objects, direction, source, peer, pods[0]):
            yield f"a network policy blocks its connection to {other.name}:{pods[0]}"


def _uses_database(workload: Workload) -> bool:
    return any(
        e.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == _DATABASE[0]
        for c in workload.containers
        for e in c.get("env", ())
        if workload.name != _DATABASE[0]
    )


def _outside(objects: list[Object], workload: Workload) -> Iterator[str]:
    """Checks that policies allow a workload to connect to object storage."""
    egress = _policies(objects, workload, "Egress")
    urls = {v for c in workload.containers for v in variables(c).values() if "s3://" in v}
    if egress and urls and not _is_open(egress, "egress", "to", _HTTPS_PORT):
        yield f"cannot reach {sorted(urls)[0]}: no network policy allows port {_HTTPS_PORT}"


def _in(objects: list[Object], workload: Workload) -> Iterator[str]:
    """Checks that policies allow callers and Prometheus to connect to a server."""
    policies = _policies(objects, workload, "Ingress")
    if not policies or not workload.is_ours or workload.is_job:
        return
    ports = port_names(workload.pod["containers"][0])
    if not _is_open(policies, "ingress", "from", ports["metrics"]):
        yield "cannot be scraped: no network policy allows its metrics port from other namespaces"
    if workload.name != f"marquee-{GATEWAY}":
        return
    called = _ports(kinds(objects, "Service").get(workload.name))
    if not all(_is_open(policies, "ingress", "from", port["port"]) for port in called):
        yield "cannot be called: no network policy allows its port from other namespaces"


def _is_open(policies: list[Object], rules: str, peers: str, port: int) -> bool:
    """Returns whether a rule allows a port for peers in other namespaces."""
    for rule in (rule for policy in policies for rule in policy["spec"].get(rules, ())):
        ports = [p.get("port") for p in rule.get("ports", ())]
        chosen = rule.get(peers, ())
        if (not chosen or any("namespaceSelector" in p for p in chosen)) and (
            not ports or port in ports
        ):
            return True
    return False


def _targets(workload: Workload) -> Mapping[str, tuple[str, int]]:
    """Returns the host and port of each connection inside the cluster, by environment variable."""
    found = {}
    for container in workload.containers:
        for name, value in variables(container).items():
            address = ""
            if name.endswith("_TARGET"):
                address = value.rpartition("/")[2]
            elif name.endswith("_ENDPOINT") and "://marquee-" in value:
                address = urlsplit(value).netloc
            host, _, port = address.rpartition(":")
            if host and port.isdecimal():
                found[name] = host, int(port)
    return found


def _ports(service: Object | None) -> list[Object]:
    found: list[Object] = service["spec"]["ports"] if service else []
    return found


def _policies(objects: list[Object], workload: Workload, direction: str) -> list[Object]:
    """Returns the policies of a direction that select a workload's pods."""
    return [
        policy
        for policy in kinds(objects, "NetworkPolicy").values()
        if direction in policy["spec"].get("policyTypes", ("Ingress",))
        and selects(policy["spec"]["podSelector"], workload.labels)
    ]


def _allows(
    objects: list[Object], direction: str, workload: Workload, peer: Workload, port: int
) -> bool:
    """Returns whether a workload's policies allow connections with a peer on the server's port."""
    policies, (rules, peers) = _policies(objects, workload, direction), _PEERS[direction]
    if not policies:
        return True
    server = peer if direction == "Egress" else workload
    for rule in (rule for policy in policies for rule in policy["spec"].get(rules, ())):
        ports = [p["port"] for p in rule.get("ports", ()) if "port" in p]
        numbers = {port_number(c, p) for p in ports for c in server.containers}
        chosen = rule.get(peers, ())
        if (not ports or port in numbers) and (
            not chosen
            or any(
                "namespaceSelector" not in p and selects(p.get("podSelector", {}), peer.labels)
                for p in chosen
            )
        ):
            return True
    return False
