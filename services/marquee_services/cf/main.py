"""Starts the CF service."""

from __future__ import annotations

from collections.abc import Mapping

from marquee_core.service_names import CF
from marquee_services.cf.models import CF_SCORERS
from marquee_services.cf.settings import CFSettings
from marquee_services.scoring import main
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.releases.trial_process import TrialLoader


def trial_loaders(settings: CFSettings) -> Mapping[str, TrialLoader]:
    """Returns the function that loads the service's part of a release on trial, by service."""
    return main.trial_loaders(settings, CF, CF_SCORERS)


async def serve(settings: CFSettings, fork_server: ForkServer | None) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Args:
        settings: The server's settings.
        fork_server: Starts the processes for trial loads; None to load releases without a trial.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    await main.serve(settings, CF, CF_SCORERS, fork_server)
