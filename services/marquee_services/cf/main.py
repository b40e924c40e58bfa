"""Starts the CF service."""

from __future__ import annotations

from marquee_core.service_names import CF
from marquee_services.cf.models import CF_SCORERS
from marquee_services.cf.settings import CFSettings
from marquee_services.scoring import main
from marquee_services.server.trial_host import TrialHost


def trial_host(settings: CFSettings) -> TrialHost:
    """Starts the process that tries releases; call it before the process has threads.

    Raises:
        OSError: The process cannot be started.
    """
    return main.trial_host(settings, CF, CF_SCORERS)


async def serve(settings: CFSettings, host: TrialHost | None) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Args:
        settings: The server's settings.
        host: Starts the processes in which releases are tried; None to load them at once.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    await main.serve(settings, CF, CF_SCORERS, host)
