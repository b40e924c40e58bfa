"""What a release holds besides its models; light to import, for the commands' help."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_services.gateway.settings import GatewaySettings


@dataclass(frozen=True)
class PrecomputeConfig:
    """Whose first pages a release holds.

    Attributes:
        users: So many users, those with the most ratings; each takes about 1,200 bytes.
        items: Of larger catalogues there are no pages: gateways retrieve candidates of those, and
            would answer otherwise.
        cells: Scores of each model that are held at once.
    """

    users: int = 50_000
    items: int = GatewaySettings.dense_limit
    cells: int = 1_000_000
