"""Starts the inference service."""

from __future__ import annotations

from collections.abc import Mapping

from marquee_core.service_names import INFERENCE
from marquee_services.inference.models import loaders
from marquee_services.inference.settings import InferenceSettings
from marquee_services.scoring import main
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.releases.trial_process import TrialLoader


def trial_loaders(settings: InferenceSettings) -> Mapping[str, TrialLoader]:
    """Returns the function that loads the service's part of a release on trial, by service."""
    return main.trial_loaders(settings, INFERENCE, loaders(settings.tensorflow_threads))


async def serve(settings: InferenceSettings, fork_server: ForkServer | None) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Args:
        settings: The server's settings.
        fork_server: Starts the processes for trial loads; None to load releases without a trial.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    await main.serve(settings, INFERENCE, loaders(settings.tensorflow_threads), fork_server)
