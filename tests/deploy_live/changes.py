"""What operators do to a running deployment, and when each is complete."""

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
# Connections end within a tenth of their age, and callers look for changed files every two seconds.
_AGE_VARIES, _NOTICED_S = 1.1, 3.0
_SHARE_S = 10.0
_ANSWERED = 'marquee_calls_total{code="OK",method="Recommend"'


@dataclass
class Deployment:
    """A running deployment.

    Attributes:
        cluster: Its pods.
        secrets: Its certificates.
        connection_age: Seconds after which servers end connections.
    """

    cluster: Cluster
    secrets: Secrets
    connection_age: float

    def wait_for_new_connections(self) -> None:
        """Waits until no connection is left that was there before."""
        time.sleep(self.connection_age * _AGE_VARIES + _NOTICED_S)


def start(deployment: Deployment) -> str:
    """Starts as many pods of each service as the manifests ask for."""
    cluster = deployment.cluster
    pods = [cluster.launch(s) for s in SERVICES for _ in range(cluster.replicas(s))]
    for pod in pods:
        cluster.admit(pod)
    return f"{len(pods)} pods are ready"


def add_gateway(deployment: Deployment) -> str:
    """Adds a gateway, and measures how soon it is called and how many of the calls it gets."""
    cluster = deployment.cluster
    added = cluster.launch(GATEWAY)
    cluster.admit(added)
    begun = time.monotonic()
    _until(lambda: added.sample(_ANSWERED) > 0, "the new gateway gets no calls")
    found = time.monotonic() - begun
    deployment.wait_for_new_connections()
    before = {pod.workspace.ip: pod.sample(_ANSWERED) for pod in cluster.of(GATEWAY)}
    time.sleep(_SHARE_S)
    got = {
        pod.workspace.ip: pod.sample(_ANSWERED) - before[pod.workspace.ip]
        for pod in cluster.of(GATEWAY)
    }
    share = got[added.workspace.ip] / max(1.0, sum(got.values()))
    if share * len(got) < 0.5:
        raise ProcessError(f"the new gateway gets {share:.0%} of the calls")
    return f"its first call after {found:.1f} s; then {share:.0%} of the calls"


def restart_all(deployment: Deployment) -> str:
    """Replaces every pod, one after the other, as a rolling update does."""
    old = [pod for service in reversed(SERVICES) for pod in deployment.cluster.of(service)]
    begun = time.monotonic()
    for pod in old:
        deployment.cluster.replace(pod)
    seconds = (time.monotonic() - begun) / len(old)
    return f"{len(old)} pods, {seconds:.0f} s each; all ended with 0"


def renew_certificates(deployment: Deployment) -> str:
    """Renews all certificates, with new keys."""
    return _renew(deployment)


def replace_authority(deployment: Deployment) -> str:
    """Replaces the authority in three steps; whoever kept an old certificate is refused at last."""
    deployment.secrets.trust_second()
    deployment.secrets.write()
    deployment.wait_for_new_connections()
    deployment.secrets.issue_from_second()
    _renew(deployment)
    deployment.secrets.distrust_first()
    return f"the new one alone is trusted; {_renew(deployment)}"


def _renew(deployment: Deployment) -> str:
    """Renews, and waits until everybody uses what is new and old connections have ended."""
    begun = time.monotonic()
    deployment.secrets.write()
    for pod in deployment.cluster.pods:
        _await_renewal(deployment, pod)
    seconds = time.monotonic() - begun
    deployment.wait_for_new_connections()
    return f"{len(deployment.cluster.pods)} servers show what is new after {seconds:.1f} s"


def _await_renewal(deployment: Deployment, pod: Pod) -> None:
    wanted = ssl.PEM_cert_to_DER_cert((pod.workspace.volume("/tls") / "tls.crt").read_text())
    _until(
        lambda: served_certificate(deployment, pod) == wanted,
        f"{pod.service} shows an old certificate",
    )


def served_certificate(deployment: Deployment, pod: Pod) -> bytes:
    """The certificate that a pod shows on a new connection, in DER."""
    caller = deployment.secrets.mounted("marquee-caller-tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # What is wanted is the certificate itself, so it need not be verified.
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
