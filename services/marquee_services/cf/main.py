"""Starts the CF service."""

from __future__ import annotations

from marquee_core.service_names import CF
from marquee_services.cf.models import CF_SCORERS
from marquee_services.cf.settings import CFSettings
from marquee_services.scoring import main


async def serve(settings: CFSettings) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    await main.serve(settings, CF, CF_SCORERS)
