"""Starts the inference service."""

from __future__ import annotations

from marquee_core.service_names import INFERENCE
from marquee_services.inference.models import INFERENCE_SCORERS, limit_threads
from marquee_services.inference.settings import InferenceSettings
from marquee_services.scoring import main


async def serve(settings: InferenceSettings) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    limit_threads(settings.tensorflow_threads)
    await main.serve(settings, INFERENCE, INFERENCE_SCORERS)
