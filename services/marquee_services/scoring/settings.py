"""Settings that the CF service and the inference service share."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_services.server.settings import ServerSettings, setting


@dataclass(frozen=True)
class ScoringSettings(ServerSettings):
    """Settings of a scoring server."""

    max_users: int = setting(1024, "Most users in one request.", low=1, high=100_000)
    blas_threads: int = setting(
        1,
        "Threads of NumPy's matrix products. More than one helps only on idle cores, because "
        "these threads wait in busy loops.",
        low=1,
        high=1024,
    )
    max_batch: int = setting(
        32, "Most users that are scored in one batch of queued requests.", low=1, high=1024
    )
