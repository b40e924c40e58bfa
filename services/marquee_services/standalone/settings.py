"""Settings of the standalone server."""

from __future__ import annotations

from dataclasses import dataclass, field

from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.settings import setting


@dataclass(frozen=True)
class StandaloneSettings(GatewaySettings):
    """Settings of the standalone server: those of the gateway, except for remote backends."""

    # Meaningless without remote backends, and therefore not options.
    cf_target: str = field(default="")
    inference_target: str = field(default="")
    backend_ca: str = field(default="")
    backend_cert: str = field(default="")
    backend_key: str = field(default="")
    resolve_interval: float = field(default=0.0)

    blas_threads: int = setting(
        1,
        "Threads of NumPy's matrix products. More than one helps only on idle cores, because "
        "these threads wait in busy loops.",
        low=1,
        high=1024,
    )
    tensorflow_threads: int = setting(
        1,
        "Threads of TensorFlow within one operation; 0 lets TensorFlow choose.",
        low=0,
        high=1024,
    )
