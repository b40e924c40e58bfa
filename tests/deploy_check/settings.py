"""Compares manifests with what their processes read: commands, variables, ports and probes."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from deploy_check.images import Image, images
from deploy_check.objects import (
    Finding,
    Object,
    Workload,
    image_name,
    kinds,
    port_names,
    selects,
    variables,
    workloads,
)
from deploy_check.tls import check_tls
from marquee.cli import main
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.gateway.main import SERVICE as RECOMMENDER_SERVICE
from marquee_services.scoring.main import SERVICE as SCORING_SERVICE
from marquee_services.server.health import LIVE

HEALTH_NAMES: Mapping[str, str] = {
    GATEWAY: RECOMMENDER_SERVICE,
    CF: SCORING_SERVICE,
    INFERENCE: SCORING_SERVICE,
}
# Read by libraries, not by command-line options.
_OTHER_VARIABLES = ("MARQUEE_TFDS_DIR", "OTEL_", "AWS_", "GOOGLE_")
_PATHS = ("store", "cache_dir", "data")


class CommandError(ValueError):
    """A container's command does not exist, or rejects its arguments or environment."""


def command_line(container: Object, image: Image) -> list[str]:
    """Returns a container's command: the image's entry point unless the manifest replaces it."""
    return [*container.get("command", image.entry_point), *container.get("args", ())]


def parse(arguments: list[str], environment: Mapping[str, str]) -> Mapping[str, Any]:
    """Parses the options that `marquee` reads from a command line and an environment.

    Raises:
        CommandError: The command does not exist, a value is not valid, or a variable is unknown.
    """
    return _parse(tuple(arguments), tuple(sorted(environment.items())))


# Cached, because overlays share most containers.
@functools.cache
def _parse(arguments: tuple[str, ...], items: tuple[tuple[str, str], ...]) -> Mapping[str, Any]:
    environment = dict(items)
    program, *rest = arguments
    if program != "marquee":
        raise CommandError(f"runs {program}, which the image does not contain")
    known: set[str] = set()
    values: dict[str, Any] = {}
    command: click.Command = main
    with _environment(environment):
        while True:
            known |= {v for o in command.params if isinstance(o, click.Option) for v in _names(o)}
            try:
                context = command.make_context(program, list(rest))
            except click.UsageError as error:
                raise CommandError(error.format_message()) from error
            values |= context.params
            if not isinstance(command, click.Group):
                break
            rest = [*context._protected_args, *context.args]
            try:
                name, found, rest = command.resolve_command(context, rest)
            except click.UsageError as error:
                raise CommandError(error.format_message()) from error
            if found is None:
                raise CommandError(f"the command {name} does not exist")
            command = found
    for variable in environment:
        if variable not in known and not variable.startswith(_OTHER_VARIABLES):
            raise CommandError(f"the variable {variable} is unknown")
    return values


def check_settings(objects: list[Object]) -> list[Finding]:
    """Finds disagreements between manifests and the processes that they start."""
    built = images()
    findings = []
    read: dict[str, Mapping[str, Any]] = {}
    for workload in workloads(objects):
        for container in workload.containers:
            name = image_name(container["image"])
            if name is None:
                continue
            if name not in built:
                findings.append(Finding(workload.where, f"the Dockerfile has no stage {name}"))
                continue
            environment = variables(container)
            try:
                values = parse(command_line(container, built[name]), environment)
            except CommandError as error:
                findings.append(Finding(workload.where, f"container {container['name']}: {error}"))
                continue
            problems = [*_files(workload, container, values)]
            if name in HEALTH_NAMES:
                read[workload.name.removeprefix("marquee-")] = values
                problems += _server(workload, container, values, HEALTH_NAMES[name])
            if name == GATEWAY:
                problems += _targets(objects, values)
            findings += [Finding(workload.where, problem) for problem in problems]
    findings += check_tls(objects, read)
    findings += _release_promotion(objects)
    return findings


def _server(
    workload: Workload, container: Object, values: Mapping[str, Any], health: str
) -> Iterator[str]:
    host, _, port = values["listen"].rpartition(":")
    ports = port_names(container)
    if host in ("127.0.0.1", "localhost"):
        yield "listens only on the loopback interface"
    if not values["max_connection_age"]:
        yield "never closes connections, so callers do not find new replicas"
    if ports.get("grpc") != int(port):
        yield f"listens on port {port}, but the port `grpc` is {ports.get('grpc')}"
    if not values["metrics_port"] or ports.get("metrics") != values["metrics_port"]:
        yield (
            f"serves metrics on port {values['metrics_port']}, but the port `metrics` is "
            f"{ports.get('metrics')}"
        )
    probed = values.get("health_port") or int(port)
    if values["tls_certificate"] and not values.get("health_port"):
        yield "the kubelet cannot probe over TLS: set a health port"
    for probe, name in (("readinessProbe", health), ("livenessProbe", LIVE)):
        action = container.get(probe, {}).get("grpc")
        if action != {"port": probed, "service": name}:
            yield f"the {probe} must check the health of {name} on port {probed}"
    wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = workload.pod.get("terminationGracePeriodSeconds", 30)
    if wait + values["grace"] >= grace:
        yield (
            f"is killed after {grace} s, before it has drained: preStop and --grace take "
            f"{wait} + {values['grace']:.0f} s"
        )


def _targets(objects: list[Object], values: Mapping[str, Any]) -> Iterator[str]:
    services = kinds(objects, "Service")
    for backend in (CF, INFERENCE):
        target = values[f"{backend}_target"]
        name, _, port = target.removeprefix("dns:///").partition(":")
        service = services.get(name)
        if service is None or str(service["spec"]["ports"][0]["port"]) != port:
            yield f"calls {target}, which no Service provides"
            continue
        chosen = [w for w in workloads(objects) if selects(service["spec"]["selector"], w.labels)]
        if [w.name for w in chosen] != [f"marquee-{backend}"]:
            yield f"the target for {backend} resolves to {[w.name for w in chosen]}"
    for name in ("marquee-gateway", "marquee-cf", "marquee-inference"):
        if services.get(name, {}).get("spec", {}).get("clusterIP") != "None":
            yield f"the Service {name} is not headless, so callers see only one address"


def _files(workload: Workload, container: Object, values: Mapping[str, Any]) -> Iterator[str]:
    """Finds paths in settings that are not on a volume, or not writable as required."""
    read_only = {
        v["name"]
        for v in workload.pod.get("volumes", ())
        if v.get("persistentVolumeClaim", {}).get("readOnly")
    }
    ephemeral = {v["name"] for v in workload.pod.get("volumes", ()) if "emptyDir" in v}
    mounts = {m["mountPath"]: m for m in container.get("volumeMounts", ())}
    for name in (*_PATHS, *(n for n in values if n.startswith(("tls_", "backend_c", "backend_k")))):
        path = str(values.get(name) or "")
        if not path.startswith("/"):
            continue
        mount = next((m for p, m in mounts.items() if f"{path}/".startswith(f"{p}/")), None)
        if mount is None:
            yield f"{name} is {path}, where no volume is mounted"
        elif name == "store" and mount["name"] in ephemeral:
            yield "store is on an emptyDir, which is empty when the pod starts"
        elif name == "store" and not workload.is_job and not mount.get("readOnly"):
            yield "store must be mounted read-only"
        elif (
            name == "store"
            and workload.is_job
            and (mount.get("readOnly") or mount["name"] in read_only)
        ):
            yield "store must be writable"
        elif name == "cache_dir" and mount.get("readOnly"):
            yield f"{name} must be writable"


def _release_promotion(objects: list[Object]) -> Iterator[Finding]:
    for workload in workloads(objects):
        if workload.kind != "CronJob":
            continue
        lines = [" ".join([*c.get("command", ()), *c.get("args", ())]) for c in workload.containers]
        if "--no-promote" not in lines[0].split() or "releases promote" not in lines[1]:
            yield Finding(
                workload.where, "must train with --no-promote, then run `marquee releases promote`"
            )


def _names(option: click.Option) -> list[str]:
    names = option.envvar
    return [names] if isinstance(names, str) else list(names or ())


@contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Replaces all MARQUEE_ variables of this process, so that its own have no effect."""
    saved = dict(os.environ)
    for name in [n for n in os.environ if n.startswith("MARQUEE_")]:
        del os.environ[name]
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
