"""Names of the services, as releases, messages, flags and logs spell them."""

from __future__ import annotations

from typing import Final

GATEWAY: Final = "gateway"
CF: Final = "cf"
INFERENCE: Final = "inference"

BACKENDS: Final = (CF, INFERENCE)
"""The services that score items for the gateway."""

SERVICES: Final = (GATEWAY, *BACKENDS)
"""All services."""
