"""Settings of the inference service."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_services.scoring.settings import ScoringSettings
from marquee_services.server.settings import setting


@dataclass(frozen=True)
class InferenceSettings(ScoringSettings):
    """Settings of the inference service."""

    listen: str = setting(
        "127.0.0.1:50053", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
    tensorflow_threads: int = setting(
        1,
        "Threads of TensorFlow within one operation; 0 lets TensorFlow choose.",
        low=0,
        high=1024,
    )
