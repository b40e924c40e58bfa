"""Names of the services as they appear in releases, messages, flags and logs."""

from __future__ import annotations

from typing import Final

GATEWAY: Final = "gateway"
CF: Final = "cf"
INFERENCE: Final = "inference"

BACKENDS: Final = (CF, INFERENCE)
"""The services that score items for the gateway."""

SERVICES: Final = (GATEWAY, *BACKENDS)
"""All services."""

STANDALONE = "standalone"
"""The gateway and both backends in one process; not a backend that a model can name."""
