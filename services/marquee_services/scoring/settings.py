"""Settings of the CF service and of the inference service."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_services.server.settings import ServerSettings, setting


@dataclass(frozen=True)
class CFSettings(ServerSettings):
    """Settings of the CF service."""

    listen: str = setting(
        "127.0.0.1:50052", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
    max_users: int = setting(1024, "Most users in one request.", low=1, high=100_000)
    blas_threads: int = setting(
        1,
        "Threads of NumPy's matrix products; more only where cores are idle, for they spin.",
        low=1,
        high=1024,
    )
    max_batch: int = setting(
        32, "Most users of waiting requests that are scored at once.", low=1, high=1024
    )


@dataclass(frozen=True)
class InferenceSettings(CFSettings):
    """Settings of the inference service."""

    listen: str = setting(
        "127.0.0.1:50053", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
    tensorflow_threads: int = setting(
        1, "Threads of TensorFlow within an operation; 0 lets it choose.", low=0, high=1024
    )
