"""Connection settings of the clients, and the gRPC options derived from them."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marquee._arguments import metadata_pairs, seconds
from marquee._certificates import Certificates
from marquee._hedging import Hedging
from marquee._lazy import LazyModule
from marquee._options import TLS, Metadata, Token
from marquee._throttling import Throttle

if TYPE_CHECKING:
    import grpc

    from marquee import _version
else:
    grpc = LazyModule("grpc")
    _version = LazyModule("marquee._version")

SERVICE = "marquee.v1.RecommenderService"
FEEDBACK_SERVICE = "marquee.v1.FeedbackService"
TIMEOUT = 1.0
"""Default deadline of a call in seconds."""
BATCH_TIMEOUT = 60.0
"""Default deadline of a batch in seconds, up to its last answer."""

# All methods except BatchRecommend, which may fail after some answers have been read, and is
# expensive for the server to repeat.
_RETRIED = ("Recommend", "PredictRatings", "SimilarItems", "SearchItems", "GetItem", "GetStatus")
# All methods, because they are idempotent.
_RETRIED_FEEDBACK = ("RecordFeedback", "DeleteFeedback", "ForgetUser", "ListFeedback")

# The retry budget. Each failed attempt takes one token and each success returns a tenth; there are
# no retries while at most half of the tokens are left. This is enough to hide a rolling restart
# under load. In an outage it stops the retries, so that they do not multiply the load.
_RETRY_TOKENS = 100
_RETRY_TOKEN_RATIO = 0.1

# After this time without data from the server, the client sends a ping. If there is no response in
# time, it closes the connection and retries its calls on another one. Without `ping_timeout`, gRPC
# does not detect a frozen server. The health watch keeps a stream open, so idle connections are
# checked too. gRPC sends at most one ping per second, which the server must allow
# (`grpc.http2.min_ping_interval_without_data_ms`). Bandwidth probes are also pings and would delay
# the keepalive pings, so the window has a fixed size instead.
_KEEPALIVE_MS = 200
_PING_TIMEOUT_MS = 400
_WINDOW_BYTES = 1024 * 1024

# Minimum and maximum backoff. With gRPC's default maximum of two minutes, a server that has
# recovered could remain unused for that long.
_RECONNECT_MS = (100, 5_000)

# Minimum time between two lookups of the target's name. With gRPC's default of 30 seconds, a client
# would discover new servers up to 30 seconds after `--max-connection-age` ends a connection.
_RESOLVE_MS = 2_000

_AUTHORIZATION = "authorization"
# Matches targets with a scheme other than ipv4, ipv6 and dns, such as `xds:///…` or `unix:…`.
_OTHER_SCHEME = re.compile(r"(?:unix|unix-abstract|vsock):|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of both clients, which are documented in `Client`.

    Raises:
        OSError: A certificate or key file of `tls` cannot be read.
        TypeError: The target is not a string, or a timeout is not a number.
        ValueError: The target is empty, an HTTP URL or lacks a port, a timeout is not a positive
            number of at most 1e9 seconds, `hedge_after` is negative, or the token would be sent in
            plaintext to another machine.
    """

    target: str
    timeout: float
    batch_timeout: float
    token: Token | None = field(repr=False)
    allow_insecure_token: bool
    tls: bool | TLS
    wait_for_ready: bool
    health_check: bool
    hedge_after: float
    throttle: bool
    channel_options: Sequence[tuple[str, Any]]
    _certificates: Certificates = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tls = self.tls if isinstance(self.tls, TLS) else TLS()
        object.__setattr__(self, "_certificates", Certificates(tls))
        check_target(self.target)
        seconds("timeout", self.timeout)
        seconds("batch_timeout", self.batch_timeout)
        if self.hedge_after:
            seconds("hedge_after", self.hedge_after)
        if self.token is not None:
            self._check_token_is_safe("the token")

    def _check_token_is_safe(self, name: str) -> None:
        """Checks that a token is not sent in plaintext to another machine.

        Raises:
            ValueError: It would be sent in plaintext.
        """
        if not (self.tls or self.allow_insecure_token or is_loopback(self.target)):
            raise ValueError(
                f"{name} would be sent to {self.target} in plaintext: "
                "use tls, or set allow_insecure_token=True"
            )

    def hedging(self) -> Hedging | None:
        """Returns the hedging of reads; None if it is off or the target has only one gateway."""
        if not self.hedge_after or has_one_address(self.target):
            return None
        return Hedging(self.hedge_after)

    def throttling(self) -> Throttle | None:
        """Returns the throttle of reads; None if it is off."""
        return Throttle() if self.throttle else None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Returns the channel's credentials; None for plaintext."""
        return grpc.ssl_channel_credentials(*self._certificates.pems) if self.tls else None

    def certificate_version(self) -> int:
        """Returns the version of the certificates. When it changes, open a new channel."""
        return self._certificates.refresh() if self.tls else 0

    def options(self) -> list[tuple[str, Any]]:
        """Returns the channel's options; `channel_options` override the defaults."""
        options: dict[str, Any] = {
            "grpc.primary_user_agent": f"marquee-python/{_version.__version__}",
            "grpc.service_config": json.dumps(self.service_config()),
            "grpc.keepalive_time_ms": _KEEPALIVE_MS,
            "grpc.keepalive_timeout_ms": _PING_TIMEOUT_MS,
            "grpc.http2.ping_timeout_ms": _PING_TIMEOUT_MS,
            "grpc.http2.bdp_probe": 0,
            "grpc.http2.lookahead_bytes": _WINDOW_BYTES,
            "grpc.initial_reconnect_backoff_ms": _RECONNECT_MS[0],
            "grpc.max_reconnect_backoff_ms": _RECONNECT_MS[1],
            "grpc.dns_min_time_between_resolutions_ms": _RESOLVE_MS,
            # Do not share connections between channels, so that a forked child never uses a
            # connection of its parent.
            "grpc.use_local_subchannel_pool": 1,
        }
        if isinstance(self.tls, TLS) and self.tls.server_name:
            options["grpc.ssl_target_name_override"] = self.tls.server_name
        # Merged here, because gRPC uses the first value if an option is given twice.
        return list((options | dict(self.channel_options)).items())

    def service_config(self) -> dict[str, Any]:
        """Returns the gRPC service config: load balancing, retries and health checks.

        It sets no `timeout`, which may expire more than a second early (grpc#40633). The deadline
        is set by `call` instead.
        """
        config: dict[str, Any] = {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": [
                        {"service": service, "method": method}
                        for service, methods in (
                            (SERVICE, _RETRIED),
                            (FEEDBACK_SERVICE, _RETRIED_FEEDBACK),
                        )
                        for method in methods
                    ],
                    "retryPolicy": {
                        "maxAttempts": 4,
                        "initialBackoff": "0.02s",
                        "maxBackoff": "0.2s",
                        "backoffMultiplier": 2,
                        # A server or proxy may end a call with CANCELLED when it shuts down or
                        # reaches a limit. gRPC does not retry calls that the client cancels.
                        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                    },
                }
            ],
            "retryThrottling": {"maxTokens": _RETRY_TOKENS, "tokenRatio": _RETRY_TOKEN_RATIO},
        }
        if self.health_check:
            config["healthCheckConfig"] = {"serviceName": SERVICE}
        return config

    def call(
        self, timeout: float | None, default: float, metadata: Metadata | None = None
    ) -> dict[str, Any]:
        """Returns the keyword arguments of a gRPC call: deadline, metadata and wait_for_ready.

        Args:
            timeout: The deadline that the caller requested in seconds; None for the default.
            default: The default deadline in seconds.
            metadata: Additional request metadata. An `authorization` in it replaces the token.

        Raises:
            TypeError: The timeout is not a number, or the metadata is not as `Metadata` describes.
            ValueError: The timeout is not a positive number of at most 1e9 seconds, or the token or
                the metadata has characters that are not allowed in a header, or the metadata has an
                `authorization` that would be sent in plaintext to another machine.
        """
        return {
            "timeout": default if timeout is None else seconds("timeout", timeout),
            "metadata": self._metadata(metadata),
            "wait_for_ready": self.wait_for_ready,
        }

    def _metadata(self, metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...]:
        given = metadata_pairs(metadata)
        if any(key == _AUTHORIZATION for key, _ in given):
            self._check_token_is_safe(f"the metadata {_AUTHORIZATION!r}")
            return given
        if self.token is None:
            return given
        token = (self.token() if callable(self.token) else self.token).strip()
        if not token.isascii() or not token.isprintable():
            # Raised here, because gRPC's error message would contain the token.
            raise ValueError("the token has characters that are not allowed in a header")
        return ((_AUTHORIZATION, f"Bearer {token}"), *given)


def check_target(target: str) -> None:
    """Checks that a target is `host:port` or another gRPC name.

    A missing port is an error, because gRPC would use port 443.

    Raises:
        TypeError: The target is not a string.
        ValueError: The target is empty or an HTTP URL, or its port is missing or out of range.
    """
    if not isinstance(target, str):
        raise TypeError(f"the target must be a string, not {type(target).__name__}")
    scheme, _, rest = target.partition(":")
    if not target or scheme in ("http", "https"):
        raise ValueError(f"the target must be host:port or a gRPC name, not {target!r}")
    if scheme in ("ipv4", "ipv6"):
        addresses = rest.split(",")
    elif scheme == "dns":
        addresses = [rest.rpartition("/")[2]]
    elif _OTHER_SCHEME.match(target):
        return  # such as unix:/path or xds:///service, which have no port
    else:
        addresses = [target]
    for address in addresses:
        host, _, port = address.rpartition(":")
        is_bare_ipv6 = ":" in host and not host.startswith("[")
        if not host or is_bare_ipv6 or address.endswith("]"):
            raise ValueError(
                f"the target {target!r} has no port: write host:port, for example localhost:50051"
            )
        if port.isdecimal() and not 0 < int(port) < 65536:
            raise ValueError(f"the target {target!r} has no valid port: {port}")
        if not port:
            raise ValueError(f"the target {target!r} has no port after the colon")


def has_one_address(target: str) -> bool:
    """Returns whether a gRPC target is a single address, not a name that may resolve to several."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract", "vsock"):
        return True
    if scheme in ("ipv4", "ipv6"):
        return "," not in rest
    host = target.removeprefix("dns:").rpartition("/")[2].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(target: str) -> bool:
    """Returns whether every address of a gRPC target is on this machine."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("ipv4", "ipv6"):
        return all(_is_loopback_host(address) for address in rest.split(","))
    return _is_loopback_host(target.removeprefix("dns:").rpartition("/")[2])


def _is_loopback_host(address: str) -> bool:
    """Returns whether `host:port`, `[host]:port` or `host` is a loopback address."""
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    else:
        host = address if address.count(":") > 1 else address.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
