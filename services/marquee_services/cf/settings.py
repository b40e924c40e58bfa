"""Settings of the CF service."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_services.scoring.settings import ScoringSettings
from marquee_services.server.settings import setting


@dataclass(frozen=True)
class CFSettings(ScoringSettings):
    """Settings of the CF service."""

    listen: str = setting(
        "127.0.0.1:50052", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
