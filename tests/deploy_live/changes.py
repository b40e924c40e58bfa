"""The changes that operators make to a running deployment; each waits until it is complete."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy_check.processes import INTERVAL_S, ProcessError
from deploy_check.secrets import Secrets
from deploy_live.cluster import SERVICES, Cluster, Pod
from marquee_core.service_names import GATEWAY

WAIT_S = 120.0
# The connection age is varied by 10 %, and callers check for changed files every two seconds.
_AGE_FACTOR, _RELOAD_S = 1.1, 3.0
_SHARE_S = 10.0
_ANSWERED = 'marquee_calls_total{code="OK",method="Recommend"'


@dataclass
class Deployment:
    """A running deployment.

    Attributes:
        cluster: Its pods.
        secrets: Its certificates.
        connection_age: Seconds after which servers close connections.
    """

    cluster: Cluster
    secrets: Secrets
    connection_age: float

    def wait_for_new_connections(self) -> None:
        """Waits until all connections that exist now have been replaced by new ones."""
        time.sleep(self.connection_age * _AGE_FACTOR + _RELOAD_S)


def start(deployment: Deployment) -> str:
    """Starts the number of pods of each service that the manifests specify."""
    cluster = deployment.cluster
    pods = [cluster.launch(s) for s in SERVICES for _ in range(cluster.replicas(s))]
    for pod in pods:
        cluster.admit(pod)
    return f"{len(pods)} pods are ready"


def add_gateway(deployment: Deployment) -> str:
    """Adds a gateway, and measures when it gets its first call and its share of the calls."""
    cluster = deployment.cluster
    added = cluster.launch(GATEWAY)
    cluster.admit(added)
    begun = time.monotonic()
    _until(lambda: added.sample(_ANSWERED) > 0, "the new gateway gets no calls")
    first_call_s = time.monotonic() - begun
    deployment.wait_for_new_connections()
    before = {pod.workspace.ip: pod.sample(_ANSWERED) for pod in cluster.of(GATEWAY)}
    time.sleep(_SHARE_S)
    calls = {
        pod.workspace.ip: pod.sample(_ANSWERED) - before[pod.workspace.ip]
        for pod in cluster.of(GATEWAY)
    }
    share = calls[added.workspace.ip] / max(1.0, sum(calls.values()))
    if share * len(calls) < 0.5:
        raise ProcessError(f"the new gateway gets only {share:.0%} of the calls")
    return f"first call after {first_call_s:.1f} s, later {share:.0%} of the calls"


def restart_all(deployment: Deployment) -> str:
    """Replaces every pod, one after the other, as a rolling update does."""
    old = [pod for service in reversed(SERVICES) for pod in deployment.cluster.of(service)]
    begun = time.monotonic()
    for pod in old:
        deployment.cluster.replace(pod)
    seconds = (time.monotonic() - begun) / len(old)
    return f"{len(old)} pods, {seconds:.0f} s each; all exited with 0"


def renew_certificates(deployment: Deployment) -> str:
    """Renews all certificates with new keys."""
    return _renew(deployment)


def replace_authority(deployment: Deployment) -> str:
    """Replaces the authority in three steps; at the end, old certificates are refused."""
    deployment.secrets.trust_second()
    deployment.secrets.write()
    deployment.wait_for_new_connections()
    deployment.secrets.issue_from_second()
    _renew(deployment)
    deployment.secrets.distrust_first()
    return f"only the new authority is trusted; {_renew(deployment)}"


def _renew(deployment: Deployment) -> str:
    """Renews all certificates, and waits until servers use them and old connections are closed."""
    begun = time.monotonic()
    deployment.secrets.write()
    for pod in deployment.cluster.pods:
        _await_renewal(deployment, pod)
    seconds = time.monotonic() - begun
    deployment.wait_for_new_connections()
    return f"{len(deployment.cluster.pods)} servers present new certificates after {seconds:.1f} s"


def _await_renewal(deployment: Deployment, pod: Pod) -> None:
    expected = ssl.PEM_cert_to_DER_cert((pod.workspace.volume("/tls") / "tls.crt").read_text())
    _until(
        lambda: served_certificate(deployment, pod) == expected,
        f"{pod.service} still presents an old certificate",
    )


def served_certificate(deployment: Deployment, pod: Pod) -> bytes:
    """Returns the certificate that a pod presents on a new connection, in DER."""
    caller = deployment.secrets.mounted("marquee-caller-tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Only reads the certificate, so there is no need to verify it.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(caller / "tls.crt", caller / "tls.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((pod.workspace.ip, pod.port), timeout=WAIT_S) as connection,
        context.wrap_socket(connection, server_hostname=f"marquee-{pod.service}") as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise ProcessError(otherwise)
        time.sleep(INTERVAL_S)
