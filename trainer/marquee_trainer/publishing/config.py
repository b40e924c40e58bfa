"""Configuration of publishing; light to import, because the commands' help needs it."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_core.release.manifest import ANN, EXACT
from marquee_services.gateway.settings import MIN_CANDIDATES, GatewaySettings

AUTO = "auto"
RETRIEVAL_KINDS = (AUTO, EXACT, ANN)


@dataclass(frozen=True)
class PrecomputeConfig:
    """Which recommendations are precomputed with a release.

    Attributes:
        users: Number of users whose first page is precomputed: those with the most ratings. A
            page takes about 1,200 bytes.
        dense_limit: Largest catalogue, in items, that is ranked completely. Gateways use the pages
            only if they have the same setting with this name.
        candidates: The number of candidates that each model retrieves from a larger catalogue; also
            a setting of gateways.
        seconds: The time for precomputing. The users with the most ratings come first, and when
            the time is used up, the others get no page. None for no limit.
    """

    users: int = 50_000
    dense_limit: int = GatewaySettings.dense_limit
    candidates: int = GatewaySettings.candidates
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.candidates < MIN_CANDIDATES:
            raise ValueError(f"candidates: less than {MIN_CANDIDATES}")


@dataclass(frozen=True)
class RetrievalConfig:
    """How the servers generate candidates from a large catalogue.

    Attributes:
        kind: `exact`, `ann` (approximate nearest neighbours), or `auto`: approximate for
            catalogues of at least `ann_items` items.
        ann_items: Smallest catalogue, in items, that `auto` searches approximately.
        target_recall: Recall@100 that the approximate index must reach against exact retrieval.
        users: Number of random users on whom recall is measured, and of others whose vectors
            determine how the index measures distances.
        training_items_per_list: Number of items per inverted list on which the centroids are
            trained.
        initial_probe_share: Share of the lists that the first attempt probes. It doubles until the
            target is reached, at most to `max_probe_share`.
        max_probe_share: Largest share of the lists worth probing.
        refinements: Number of bisection steps that then lower the number of probes.
    """

    kind: str = AUTO
    ann_items: int = 50_000
    target_recall: float = 0.95
    users: int = 256
    training_items_per_list: int = 40
    initial_probe_share: float = 1 / 128
    max_probe_share: float = 1 / 4
    refinements: int = 3
