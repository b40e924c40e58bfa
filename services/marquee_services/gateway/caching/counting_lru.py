"""An LRU cache that counts its evictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from cachetools import LRUCache
from prometheus_client.metrics_core import Metric

from marquee_services.server.telemetry.metrics import counter, gauge

_K = TypeVar("_K")
_V = TypeVar("_V")


class CountingLRU(LRUCache[_K, _V]):
    """An LRU cache that counts its evictions.

    Attributes:
        evictions: The number of entries that were evicted because the cache was full.
    """

    evictions = 0

    def popitem(self) -> tuple[_K, _V]:
        """Evicts the least recently used entry; the cache calls this when it is full."""
        self.evictions += 1
        return super().popitem()


def cache_metrics(caches: Mapping[str, CountingLRU[Any, Any]]) -> Iterator[Metric]:
    """Yields the metrics of caches by name."""

    def of(read: Callable[[CountingLRU[Any, Any]], float]) -> dict[tuple[str, ...], float]:
        return {(name,): float(read(cache)) for name, cache in caches.items()}

    names = ("cache",)
    yield gauge("marquee_cache_bytes", "Size of a cache.", of(lambda c: c.currsize), names)
    yield gauge("marquee_cache_limit_bytes", "Limit of a cache.", of(lambda c: c.maxsize), names)
    yield gauge("marquee_cache_entries", "Entries of a cache.", of(len), names)
    yield counter(
        "marquee_cache_evictions",
        "Entries evicted because a cache was full.",
        of(lambda c: c.evictions),
        names,
    )
