"""The gateway's settings: its address, its backends and its limits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from marquee_core.feedback.location import check_log_setting, log_url
from marquee_services.server.addresses import check_target
from marquee_services.server.settings import ServerSettings, setting

MIN_CANDIDATES = 20
"""The fewest candidates that each model may retrieve: those of a page of the default size."""


@dataclass(frozen=True)
class GatewaySettings(ServerSettings):
    """Settings of the gateway."""

    listen: str = setting(
        "127.0.0.1:50051", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
    cf_target: str = setting("127.0.0.1:50052", "gRPC target of the CF service.")
    inference_target: str = setting("127.0.0.1:50053", "gRPC target of the inference service.")
    backend_ca: str = setting(
        "", "PEM file of the CA that signs the backends' certificates; empty: connect without TLS."
    )
    backend_cert: str = setting(
        "", "PEM file of the certificate chain that the gateway presents to the backends (mTLS)."
    )
    backend_key: str = setting("", "PEM file of the private key of --backend-cert.")
    backend_timeout: float = setting(
        0.5,
        "Seconds that a backend has to answer; without an answer, its models are left out of the "
        "ensemble.",
        low=0.005,
    )
    deadline_reserve: float = setting(
        0.05,
        "Seconds before a call's deadline at which backends must have answered, to leave time for "
        "the gateway.",
        low=0,
    )
    probe_interval: float = setting(
        1.0, "Seconds between probes of a backend's health and releases.", low=0.05
    )
    resolve_interval: float = setting(
        2.0,
        "Seconds between DNS look-ups of a backend's host; each of its addresses is a replica.",
        low=0.05,
    )
    max_batch: int = setting(
        32, "Most users in one micro-batched call to a backend.", low=1, high=1024
    )
    max_waiting: int = setting(
        2048,
        "Most users queued for a replica of a backend; further users are answered without it.",
        low=1,
    )
    dense_limit: int = setting(
        20_000,
        "Largest catalogue, in items, that is scored completely; for larger ones, the models "
        "retrieve candidates first.",
        low=0,
    )
    candidates: int = setting(
        500,
        "Candidates that each model retrieves from a catalogue above --dense-limit.",
        low=MIN_CANDIDATES,
    )
    list_cache_mib: int = setting(
        16,
        "MiB of memory for the scores of lists of which further pages may be requested.",
        low=0,
        high=65536,
        alias="list-memory",
        env_alias="MARQUEE_GATEWAY_LIST_MEMORY",
    )
    answer_cache_mib: int = setting(
        16,
        "MiB of memory for cached answers to known users, which are valid until the release "
        "changes; 0 turns the cache off.",
        low=0,
        high=65536,
        alias="answer-memory",
        env_alias="MARQUEE_GATEWAY_ANSWER_MEMORY",
    )
    precomputed_pages: bool = setting(
        True,
        "Answer requests of known users without options from the pages that were precomputed with "
        "the release.",
        alias="first-pages",
        env_alias="MARQUEE_GATEWAY_FIRST_PAGES",
    )
    max_streams: int = setting(
        32,
        "Most calls in progress on one connection; gRPC clients queue further ones. Limits how "
        "long calls wait before they can be answered or refused.",
        low=1,
    )
    connection_guard: bool = setting(
        True,
        "End connections on which far more calls are reset, or never send their request, than are "
        "answered. Turn it off behind a proxy that puts calls of many callers on one connection.",
    )
    max_computing: int = setting(
        256,
        "Most answers to single calls that are computed at the same time. Under overload the limit "
        "adapts to the latency, and calls that wait for too long are refused with "
        "RESOURCE_EXHAUSTED.",
        low=1,
    )
    min_computing: int = setting(
        8, "Lower bound of the limit that adapts to the latency under overload.", low=1
    )
    min_in_flight: int = setting(
        32,
        "Up to this many single calls whose answers are computed or queued, there is no overload, "
        "and none is refused. The default is what one connection may have in progress.",
        low=0,
    )
    latency_tolerance: float = setting(
        2.5,
        "Tolerated 99th percentile of the latency under load, as a multiple of the one without "
        "load.",
        low=1.1,
        high=100,
    )
    unhurried_latency: float = setting(
        0.02, "Mean latency in seconds up to which the adaptive limit is never reduced.", low=0
    )
    batch_parallel: int = setting(
        16,
        "Most subjects of all BatchRecommend calls that are computed at the same time; subjects "
        "with large pages or reasons count several times.",
        low=1,
        high=4096,
    )
    max_searches: int = setting(
        64,
        "Most expensive searches of the catalogue in progress or queued; further ones are refused.",
        low=1,
    )
    max_request_bytes: int = setting(
        4 * 1024 * 1024, "Largest request in bytes.", low=1024, high=64 * 1024 * 1024
    )
    feedback: str = setting(
        "",
        "Feedback log: `sqlite` (a file next to the store), sqlite:///PATH or postgresql://…; "
        "empty: no feedback is recorded or used. Put a URL with a password in the variable.",
        env="MARQUEE_FEEDBACK",
    )
    feedback_poll_interval: float = setting(
        0.1, "Seconds between reads of the feedback log.", low=0.01, high=60
    )
    feedback_timeout: float = setting(
        2.0, "Seconds that a call waits for the feedback log.", low=0.1, high=60
    )
    feedback_memory_mib: int = setting(
        64,
        "MiB of memory for users' feedback since the release was trained; beyond it, the feedback "
        "of the users with the oldest changes is ignored.",
        low=1,
        high=65536,
    )
    experiment_count_interval: float = setting(
        1.0,
        "Seconds between writes of the numbers of lists per user of an experiment; a killed "
        "gateway loses at most the counts of this interval.",
        low=0.05,
        high=60,
    )
    tokens_file: str = setting(
        "",
        "File of bearer tokens, one `NAME SCOPE[,SCOPE] TOKEN` per line, with the scopes "
        "recommend, feedback and admin. Calls without a valid token are then refused.",
    )
    jwt_keys: str = setting(
        "",
        "Public keys of the JSON Web Tokens to accept: a file (JWKS or PEM) or the https URL of a "
        "JWKS. Calls without a valid token are then refused.",
    )
    jwt_issuer: str = setting("", "Required issuer of JSON Web Tokens.")
    jwt_audience: str = setting("", "Required audience of JSON Web Tokens.")
    rate_limit: float = setting(
        0.0,
        "Calls per second that each identity (token holder, or address without a token) may make; "
        "0 sets no limit.",
        low=0,
    )
    rate_burst: int = setting(
        100, "Most calls in a burst of one identity under --rate-limit.", low=1
    )
    admin_token_file: str = setting(
        "",
        "File with a bearer token with the scope admin, which ForgetUser and ListFeedback require, "
        "for gateways that check no other tokens.",
        alias="feedback-admin-token-file",
        env_alias="MARQUEE_GATEWAY_FEEDBACK_ADMIN_TOKEN_FILE",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_computing > self.max_computing:
            raise ValueError("min_computing: greater than max_computing")
        if bool(self.backend_cert) != bool(self.backend_key):
            raise ValueError("backend_cert and backend_key must be given together")
        if self.backend_cert and not self.backend_ca:
            raise ValueError("backend_cert requires backend_ca")
        if not bool(self.jwt_keys) == bool(self.jwt_issuer) == bool(self.jwt_audience):
            raise ValueError("jwt_keys, jwt_issuer and jwt_audience must be given together")
        self._check_files("backend_ca", "backend_cert", "backend_key")
        self._check_files("tokens_file", "admin_token_file")
        check_log_setting(self.feedback, self.store)
        # The standalone server calls no backends, so that their targets are not among its settings.
        for target in dataclasses.fields(self):
            if target.name in ("cf_target", "inference_target") and target.metadata:
                self._check_address(target.name, check_target)

    @property
    def feedback_url(self) -> str:
        """The URL of the feedback log; "" if there is none."""
        return log_url(self.feedback, self.store)

    @property
    def checks_tokens(self) -> bool:
        """Whether every call requires a valid token."""
        return bool(self.tokens_file or self.jwt_keys)
