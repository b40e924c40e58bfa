"""How the clients reach the servers: settings and their defaults, as gRPC takes them."""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marquee._deferred import Deferred
from marquee._options import TLS, Token

if TYPE_CHECKING:
    import grpc

    from marquee import _version
else:
    grpc = Deferred("grpc")
    _version = Deferred("marquee._version")

SERVICE = "marquee.v1.RecommenderService"
TIMEOUT = 1.0
"""Seconds that a call may take, if neither the client nor the call says otherwise."""
BATCH_TIMEOUT = 60.0
"""Seconds that a batch may take, likewise."""

# All but BatchRecommend, which may have sent answers before it fails, and which is no small work.
_RETRIED = ("Recommend", "PredictRatings", "SimilarItems", "SearchItems", "GetItem", "GetStatus")

# Each failed attempt takes a token and each success gives back a tenth; below half of the tokens
# nothing is retried. So a rolling restart under load is retried away, and an outage is not made
# worse: then retries are at most a tenth of the calls.
_RETRY_TOKENS = 100
_RETRY_TOKEN_RATIO = 0.1

# After a second without a byte from the server a ping goes out; half a second later the connection
# is given up, and its calls are retried elsewhere. Without `ping_timeout` a frozen server goes
# unnoticed. The health watch keeps a stream open, so idle connections are looked after too; a
# server must permit a ping a second (`grpc.http2.min_ping_interval_without_data_ms`).
_KEEPALIVE_MS = 1_000
_PING_TIMEOUT_MS = 500

# gRPC's own maximum is two minutes: so long would a server that came back stay unused.
_RECONNECT_MS = (100, 5_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What both clients are made with; see `Client` for the meaning of each.

    Raises:
        OSError: A file of `tls` cannot be read.
        ValueError: A setting makes no sense, or would send a token where others can read it.
    """

    target: str
    timeout: float
    batch_timeout: float
    token: Token | None = field(repr=False)
    allow_insecure_token: bool
    tls: bool | TLS
    wait_for_ready: bool
    health_check: bool
    channel_options: Sequence[tuple[str, Any]]
    _pems: tuple[bytes | None, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tls = self.tls if isinstance(self.tls, TLS) else TLS()
        object.__setattr__(self, "_pems", (_pem(tls.ca), _pem(tls.key), _pem(tls.cert)))
        if not self.target or self.target.startswith(("http://", "https://")):
            raise ValueError(f"a target is host:port, not {self.target!r}")
        _check_timeout(self.timeout)
        _check_timeout(self.batch_timeout)
        if self.token is not None and not (
            self.tls or self.allow_insecure_token or is_loopback(self.target)
        ):
            raise ValueError(
                f"a token would travel readable to {self.target}: "
                "use tls, or say allow_insecure_token=True"
            )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The channel's credentials; None for plaintext."""
        return grpc.ssl_channel_credentials(*self._pems) if self.tls else None

    def options(self) -> list[tuple[str, Any]]:
        """The channel's options; those that the caller gave win."""
        options: dict[str, Any] = {
            "grpc.primary_user_agent": f"marquee-python/{_version.__version__}",
            "grpc.service_config": json.dumps(self.service_config()),
            "grpc.keepalive_time_ms": _KEEPALIVE_MS,
            "grpc.keepalive_timeout_ms": _PING_TIMEOUT_MS,
            "grpc.http2.ping_timeout_ms": _PING_TIMEOUT_MS,
            "grpc.initial_reconnect_backoff_ms": _RECONNECT_MS[0],
            "grpc.max_reconnect_backoff_ms": _RECONNECT_MS[1],
            # A channel shares no connection with others: with those that a process had before it
            # forked, above all.
            "grpc.use_local_subchannel_pool": 1,
        }
        if isinstance(self.tls, TLS) and self.tls.server_name:
            options["grpc.ssl_target_name_override"] = self.tls.server_name
        # Of two values for an option gRPC takes the first.
        return list((options | dict(self.channel_options)).items())

    def service_config(self) -> dict[str, Any]:
        """Balancing, retries and health watch, as gRPC's service config.

        Its `timeout` stays unused: gRPC lets it pass more than a second early (grpc#40633).
        """
        config: dict[str, Any] = {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": [{"service": SERVICE, "method": method} for method in _RETRIED],
                    "retryPolicy": {
                        "maxAttempts": 4,
                        "initialBackoff": "0.02s",
                        "maxBackoff": "0.2s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ],
            "retryThrottling": {"maxTokens": _RETRY_TOKENS, "tokenRatio": _RETRY_TOKEN_RATIO},
        }
        if self.health_check:
            config["healthCheckConfig"] = {"serviceName": SERVICE}
        return config

    def call(self, timeout: float | None, default: float) -> dict[str, Any]:
        """The keyword arguments of every gRPC call.

        Args:
            timeout: What the call asked for, in seconds; None for the default.
            default: The default.

        Raises:
            ValueError: The timeout makes no sense, or the token cannot travel in a header.
        """
        if timeout is None:
            timeout = default
        else:
            _check_timeout(timeout)
        return {
            "timeout": timeout,
            "metadata": self._metadata(),
            "wait_for_ready": self.wait_for_ready,
        }

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self.token is None:
            return ()
        token = (self.token() if callable(self.token) else self.token).strip()
        if not token.isascii() or not token.isprintable():
            # gRPC's own message would show the token.
            raise ValueError("the token holds characters that a header cannot carry")
        return (("authorization", f"Bearer {token}"),)


def is_loopback(target: str) -> bool:
    """Whether every address of a gRPC target is this machine's own."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("ipv4", "ipv6"):
        return all(_is_loopback_host(address) for address in rest.split(","))
    return _is_loopback_host(target.removeprefix("dns:").rpartition("/")[2])


def _is_loopback_host(address: str) -> bool:
    """Whether `host:port`, `[host]:port` or `host` is this machine."""
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


def _check_timeout(timeout: float) -> None:
    if not 0 < timeout < math.inf:
        raise ValueError(f"a timeout is a positive number of seconds, not {timeout}")


def _pem(source: str | Path | bytes | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else Path(source).read_bytes()
