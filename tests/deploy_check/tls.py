"""Checks that the certificates allow the connections between the parts of a deployment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from deploy_check.objects import Finding, Object, Workload, kinds, where, workloads
from deploy_check.references import CERTIFICATE_KEYS
from marquee_core.service_names import CF, GATEWAY, INFERENCE

_FILES = (
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "backend_ca",
    "backend_cert",
    "backend_key",
)
_GROUP_MAY_READ = 0o040
_DEFAULT_MODE = 0o644
Settings = Mapping[str, Mapping[str, Any]]


def check_tls(objects: list[Object], settings: Settings) -> list[Finding]:
    """Finds problems that prevent TLS connections between servers or from callers.

    Args:
        objects: The rendered objects.
        settings: The settings of each server, by service.
    """
    servers = {w.name.removeprefix("marquee-"): w for w in workloads(objects)}
    certificates = {c["spec"]["secretName"]: c for c in kinds(objects, "Certificate").values()}
    findings = [*_issuers(objects, certificates), *_renewals(certificates)]
    for service, values in settings.items():
        workload = servers[service]
        problems = [
            *_files(workload, values),
            *_served(service, workload, values, certificates),
        ]
        findings += [Finding(workload.where, problem) for problem in problems]
    if GATEWAY in settings:
        for backend in {CF, INFERENCE} & settings.keys():
            findings += [
                Finding(servers[GATEWAY].where, problem)
                for problem in _call(
                    settings, backend, servers[GATEWAY], servers[backend], certificates
                )
            ]
    return findings


def _issuers(objects: list[Object], certificates: Mapping[str, Object]) -> Iterator[Finding]:
    issuers = kinds(objects, "Issuer")
    for certificate in certificates.values():
        reference = certificate["spec"]["issuerRef"]
        if reference.get("kind", "Issuer") == "Issuer" and reference["name"] not in issuers:
            yield Finding(where(certificate), f"the issuer {reference['name']} does not exist")
    for issuer in issuers.values():
        secret = issuer["spec"].get("ca", {}).get("secretName")
        if secret and not certificates.get(secret, {}).get("spec", {}).get("isCA"):
            yield Finding(
                where(issuer), f"signs with {secret}, which is not the Secret of an authority"
            )


def _renewals(certificates: Mapping[str, Object]) -> Iterator[Finding]:
    for certificate in certificates.values():
        spec = certificate["spec"]
        if "renewBefore" in spec and _hours(spec["renewBefore"]) >= _hours(spec["duration"]):
            yield Finding(
                where(certificate), "is renewed continuously: renewBefore is not less than duration"
            )


def _hours(duration: str) -> int:
    return int(duration.removesuffix("h"))


def _secret_of(workload: Workload, path: str) -> Object | None:
    """Returns the Secret whose mount contains a path."""
    volumes = {v["name"]: v for v in workload.pod.get("volumes", ())}
    for mount in workload.pod["containers"][0].get("volumeMounts", ()):
        if PurePosixPath(path).is_relative_to(mount["mountPath"]):
            found: Object | None = volumes.get(mount["name"], {}).get("secret")
            return found
    return None


def _certificate_of(
    workload: Workload, path: str, certificates: Mapping[str, Object]
) -> Object | None:
    secret = _secret_of(workload, path)
    found = certificates.get(secret["secretName"]) if secret else None
    return found["spec"] if found else None


def _files(workload: Workload, values: Mapping[str, Any]) -> Iterator[str]:
    for name in _FILES:
        path = str(values.get(name) or "")
        secret = _secret_of(workload, path) if path else None
        if secret is None:
            continue
        if PurePosixPath(path).name not in CERTIFICATE_KEYS:
            yield f"{name} is {path}, which the Secret {secret['secretName']} does not have"
        if not secret.get("defaultMode", _DEFAULT_MODE) & _GROUP_MAY_READ:
            yield f"its group may not read {path}"


def _served(
    service: str,
    workload: Workload,
    values: Mapping[str, Any],
    certificates: Mapping[str, Object],
) -> Iterator[str]:
    """Checks that a server's certificate is valid for the name that callers use."""
    path = values["tls_certificate"]
    spec = _certificate_of(workload, path, certificates) if path else None
    if spec is None:
        return
    if f"marquee-{service}" not in spec.get("dnsNames", ()):
        yield f"its certificate is for {spec.get('dnsNames')}, not for marquee-{service}"
    if "server auth" not in spec.get("usages", ["server auth"]):
        yield "its certificate lacks the usage `server auth`"
    if service == GATEWAY and values["tls_client_ca"]:
        others = [c["spec"] for c in certificates.values() if c["spec"] != spec]
        if not any(
            "client auth" in s.get("usages", ()) and s["issuerRef"] == spec["issuerRef"]
            for s in others
        ):
            yield "requires certificates from callers, but its authority issues none for callers"


def _call(
    settings: Settings,
    backend: str,
    gateway: Workload,
    backend_pods: Workload,
    certificates: Mapping[str, Object],
) -> Iterator[str]:
    """Checks that the gateway can call a backend."""
    own, other = settings[GATEWAY], settings[backend]
    if bool(own["backend_ca"]) != bool(other["tls_certificate"]):
        sides = ("TLS", "plaintext") if own["backend_ca"] else ("plaintext", "TLS")
        yield f"calls {backend} with {sides[0]}, but {backend} expects {sides[1]}"
    if not other["tls_client_ca"]:
        return
    if not own["backend_cert"]:
        yield f"has no client certificate, but {backend} requires one"
        return
    spec = _certificate_of(gateway, own["backend_cert"], certificates)
    if spec is None:
        return
    theirs = _certificate_of(backend_pods, other["tls_certificate"], certificates)
    if theirs is not None and theirs["issuerRef"] != spec["issuerRef"]:
        yield f"its certificate and that of {backend} are issued by different authorities"
    if "client auth" not in spec.get("usages", ()):
        yield "its client certificate lacks the usage `client auth`"
    allowed = {n.strip() for n in other["tls_allowed_clients"].split(",") if n.strip()}
    if allowed and not allowed & {*spec.get("dnsNames", ()), *spec.get("uris", ())}:
        yield f"{backend} admits {', '.join(sorted(allowed))}, not {spec.get('dnsNames')}"
