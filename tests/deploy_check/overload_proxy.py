"""Checks the proxy in front of the gateway: its configuration, its addresses and its limits."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy_check.objects import Finding, Object, kinds, port_names, variables, where, workloads
from marquee_core.service_names import GATEWAY
from proxies import environment, program

NAME = "overload-proxy"
CONFIG = "haproxy.cfg"


def check_overload_proxy(objects: list[Object]) -> list[Finding]:
    """Finds reasons why the proxy does not start, is not called, or does not reach the gateway."""
    found = []
    for workload in workloads(objects):
        for container in workload.containers:
            if container["name"] == NAME:
                gateway = next(c for c in workload.containers if c["name"] == GATEWAY)
                problems = [
                    *_addresses(container, gateway),
                    *_limits(variables(container)),
                    *_service(objects, workload.name, container),
                ]
                found += [Finding(workload.where, problem) for problem in problems]
                found += _files(objects, variables(container))
    return found


def _addresses(container: Object, gateway: Object) -> Iterator[str]:
    given, ports = variables(container), port_names(container)
    for variable, port in (("LISTEN", "public"), ("METRICS", "proxy-metrics")):
        if given[variable].rpartition(":")[2] != str(ports[port]):
            yield f"the proxy's {variable} is {given[variable]}, not port {ports[port]}"
    listens = variables(gateway)["MARQUEE_GATEWAY_LISTEN"].rpartition(":")[2]
    if given["GATEWAY"] != f"127.0.0.1:{listens}":
        yield f"the proxy calls {given['GATEWAY']}, but the gateway listens on port {listens}"
    if variables(gateway).get("MARQUEE_GATEWAY_CONNECTION_GUARD") != "false":
        yield "the connection guard is on, but all calls come from the proxy's connections"


def _limits(given: Mapping[str, str]) -> Iterator[str]:
    for name in ("MAX_COMPUTED", "MAX_STORED", "MAX_QUEUED"):
        if not given[name].isdecimal() or int(given[name]) < 1:
            yield f"{name} is {given[name]!r}, not a number of calls"


def _service(objects: list[Object], name: str, container: Object) -> Iterator[str]:
    for port in kinds(objects, "Service")[name]["spec"]["ports"]:
        if port["targetPort"] not in port_names(container):
            yield f"callers bypass the proxy: the Service's targetPort is {port['targetPort']}"


def _files(objects: list[Object], given: Mapping[str, str]) -> Iterator[Finding]:
    """Lets HAProxy check its configuration, and `sh` the script, if the programs are available."""
    for config in kinds(objects, "ConfigMap").values():
        files = config.get("data", {})
        if CONFIG not in files:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                Path(folder, name).write_text(text)
            commands = [["sh", "-n", f"{folder}/start.sh"]]
            if haproxy := program("haproxy"):
                commands.append([str(haproxy), "-c", "-f", f"{folder}/{CONFIG}"])
            for command in commands:
                ended = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    env={**environment(), **given},
                )
                if ended.returncode or "WARNING" in ended.stderr:
                    yield Finding(where(config), ended.stderr.strip())
