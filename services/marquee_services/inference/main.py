"""Starts the inference service."""

from __future__ import annotations

from marquee_core.service_names import INFERENCE
from marquee_services.inference.models import loaders
from marquee_services.inference.settings import InferenceSettings
from marquee_services.scoring import main


async def serve(settings: InferenceSettings) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    await main.serve(settings, INFERENCE, loaders(settings.tensorflow_threads))
