"""Starts the inference service."""

from __future__ import annotations

from marquee_core.service_names import INFERENCE
from marquee_services.inference.models import loaders
from marquee_services.inference.settings import InferenceSettings
from marquee_services.scoring import main
from marquee_services.server.trial_host import TrialHost


def trial_host(settings: InferenceSettings) -> TrialHost:
    """Starts the process that tries releases; call it before the process has threads.

    Raises:
        OSError: The process cannot be started.
    """
    return main.trial_host(settings, INFERENCE, loaders(settings.tensorflow_threads))


async def serve(settings: InferenceSettings, host: TrialHost | None) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Args:
        settings: The server's settings.
        host: Starts the processes in which releases are tried; None to load them at once.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    await main.serve(settings, INFERENCE, loaders(settings.tensorflow_threads), host)
