"""Metrics of what is recommended: to whom, with which predicted stars, and how popular it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import Counter
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Bool, Float64, Int64
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.metrics import Metrics, counter

# A stored answer is not parsed each time; one in so many is, and counts for all of them.
SAMPLED_ONE_IN = 16
_POPULAR_SHARE = 0.1
_STARS = np.arange(0.5, 5.51, 0.5)
_KIND_PREFIX = "SUBJECT_KIND_"
_MAX_RELEASES = 4


@dataclass
class _OfRelease:
    """What was counted for a release.

    Attributes:
        is_popular: Whether an item is among the tenth with the most ratings (bool, items).
        stars: Items by predicted stars: those up to each bound, and those above the last
            (int64, bounds + 1).
        star_sum: The sum of the predicted stars.
        items: Recommended items that are popular, and others.
    """

    is_popular: Bool
    stars: Int64 = field(default_factory=lambda: np.zeros(len(_STARS) + 1, np.int64))
    star_sum: float = 0.0
    items: list[int] = field(default_factory=lambda: [0, 0])


class AnswerMetrics:
    """Counts the answers to Recommend and BatchRecommend."""

    def __init__(self, metrics: Metrics) -> None:
        """Registers the metrics."""
        kinds = Counter(
            "marquee_subjects_total",
            "Number of answers by the kind of their subject.",
            ("kind",),
            registry=metrics.registry,
        )
        self._kinds = {
            value: kinds.labels(name.removeprefix(_KIND_PREFIX))
            for name, value in types_pb2.SubjectKind.items()
            if value
        }
        self._empty = Counter(
            "marquee_empty_answers_total",
            "Number of answers without items.",
            registry=metrics.registry,
        )
        self._releases: OrderedDict[str, _OfRelease] = OrderedDict()
        self._stored = 0
        metrics.read_on_scrape(self._read)

    def count(
        self, release: GatewayRelease, response: pb.RecommendResponse, times: int = 1
    ) -> None:
        """Counts an answer.

        Args:
            release: The release that answered.
            response: The answer.
            times: How many answers it stands for.
        """
        if response.subject_kind in self._kinds:
            self._kinds[response.subject_kind].inc(times)
        if not response.items:
            self._empty.inc(times)
            return
        found = self._of(release)
        indexes = release.catalogue.items.indexes([item.item_id for item in response.items])
        popular = int(found.is_popular[indexes].sum())
        found.items[0] += times * popular
        found.items[1] += times * (len(indexes) - popular)
        if release.predicts_stars:
            self._count_stars(
                found,
                np.array([item.predicted_stars for item in response.items], np.float64),
                times,
            )

    def count_stored(self, release: GatewayRelease, body: bytes) -> None:
        """Counts a stored answer, a sample of which is parsed.

        Args:
            release: The release that the answer is of.
            body: The serialised RecommendResponse.
        """
        self._stored += 1
        if self._stored % SAMPLED_ONE_IN == 1:
            self.count(release, pb.RecommendResponse.FromString(body), SAMPLED_ONE_IN)

    def _of(self, release: GatewayRelease) -> _OfRelease:
        found = self._releases.get(release.release_id)
        if found is None:
            counts = release.rating_counts
            popular = np.zeros(len(counts), np.bool_)
            most = np.argsort(-counts, kind="stable")[: max(1, int(len(counts) * _POPULAR_SHARE))]
            popular[most] = True
            found = self._releases[release.release_id] = _OfRelease(popular)
            while len(self._releases) > _MAX_RELEASES:
                self._releases.popitem(last=False)
        return found

    def _count_stars(self, found: _OfRelease, stars: Float64, times: int) -> None:
        places = np.searchsorted(_STARS, stars)
        found.stars += times * np.bincount(places, minlength=len(found.stars))
        found.star_sum += times * float(stars.sum())

    def _read(self) -> Iterator[Metric]:
        stars = HistogramMetricFamily(
            "marquee_predicted_stars",
            "Recommended items by predicted stars.",
            labels=["release_id"],
        )
        items: dict[tuple[str, str], float] = {}
        for release_id, found in list(self._releases.items()):
            counts = np.cumsum(found.stars).tolist()
            bounds = [*(f"{bound:g}" for bound in _STARS), "+Inf"]
            buckets = list(zip(bounds, counts, strict=True))
            stars.add_metric([release_id], buckets, found.star_sum)
            for name, count in zip(("popular", "other"), found.items, strict=True):
                items[release_id, name] = count
        yield stars
        yield counter(
            "marquee_recommended_items",
            "Recommended items: popular are the tenth of the catalogue with the most ratings.",
            items,
            ("release_id", "popularity"),
        )
