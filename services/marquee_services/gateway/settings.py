"""Settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_services.server.settings import ServerSettings, setting


@dataclass(frozen=True)
class GatewaySettings(ServerSettings):
    """Settings of the gateway."""

    listen: str = setting(
        "127.0.0.1:50051", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
    cf_target: str = setting("127.0.0.1:50052", "gRPC target of the CF service.")
    inference_target: str = setting("127.0.0.1:50053", "gRPC target of the inference service.")
    backend_ca: str = setting(
        "", "PEM file of the authority of the backends' certificates; empty: no TLS to them."
    )
    backend_timeout: float = setting(
        0.5, "Seconds that a backend has before the answer goes on without it.", low=0.005
    )
    deadline_reserve: float = setting(
        0.05, "Seconds of a call's deadline kept back to answer without a slow backend.", low=0
    )
    probe_interval: float = setting(
        1.0, "Seconds between looks at a backend's health and releases.", low=0.05
    )
    resolve_interval: float = setting(
        2.0,
        "Seconds between look-ups of a backend's host, whose addresses are its replicas.",
        low=0.05,
    )
    max_batch: int = setting(
        32, "Most users in one call to a backend; those that wait are gathered.", low=1, high=1024
    )
    max_waiting: int = setting(
        2048, "Users that may wait for a backend; more are answered without it.", low=1
    )
    dense_limit: int = setting(
        20_000,
        "Largest catalogue that is scored whole; of larger ones the backends retrieve candidates.",
        low=0,
    )
    candidates: int = setting(
        500, "Items that each model retrieves of a catalogue that is not scored whole.", low=20
    )
    list_memory: int = setting(
        16, "MiB for ranked lists whose next pages may be asked for.", low=1, high=65536
    )
    answer_memory: int = setting(
        16,
        "MiB for answers to known users, who get them again until the release changes; 0: none.",
        low=0,
        high=65536,
    )
    first_pages: bool = setting(
        True, "Answer plain requests of known users with the pages that the release holds."
    )
    batch_parallel: int = setting(
        128, "Subjects of one BatchRecommend that are worked on at once.", low=1, high=4096
    )
    max_request_bytes: int = setting(
        4 * 1024 * 1024, "Largest request in bytes.", low=1024, high=64 * 1024 * 1024
    )
