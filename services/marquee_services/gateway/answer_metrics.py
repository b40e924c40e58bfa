"""Metrics of recommendations: kinds of subjects, predicted stars and popularity of items.

Answers are queued and counted many at a time, or when the metrics are scraped. This costs a
fraction of counting each answer immediately.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Bool, Float64, Int32, Int64
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.telemetry.metrics import Metrics, counter

# One in this many stored answers is parsed, and counts for all of them.
SAMPLED_ONE_IN = 32
# Queued answers are counted when there are this many of them, or of their items.
_MAX_PENDING, _MAX_PENDING_ITEMS = 256, 5_120
_POPULAR_SHARE = 0.1
_STARS = np.arange(0.5, 5.51, 0.5)
_KIND_PREFIX = "SUBJECT_KIND_"
_MAX_RELEASES = 4


@dataclass
class _ReleaseCounts:
    """The counts of a release.

    Attributes:
        is_popular: Whether an item is among the tenth of the catalogue with the most ratings
            (bool, items).
        stars: The number of items by predicted stars: in the interval up to each bound, and above
            the last bound (int64, bounds + 1).
        star_sum: The sum of the predicted stars.
        items: The numbers of recommended items that are popular, and of others.
    """

    is_popular: Bool
    stars: Int64 = field(default_factory=lambda: np.zeros(len(_STARS) + 1, np.int64))
    star_sum: float = 0.0
    items: list[int] = field(default_factory=lambda: [0, 0])


class _Answer(NamedTuple):
    """An answer to count.

    Attributes:
        counts: The counts of the release that answered.
        kind: The kind of the subject.
        items: The indexes of the recommended items (int32, n).
        stars: Their predicted stars (float, n); None if there are none.
        times: The number of answers that it represents.
    """

    counts: _ReleaseCounts
    kind: int
    items: Int32
    stars: Float64 | None
    times: int


def _add(answers: Sequence[_Answer]) -> None:
    """Counts answers of one release, each of which represents the same number of answers."""
    found, times = answers[0].counts, answers[0].times
    popular = found.is_popular[np.concatenate([answer.items for answer in answers])]
    found.items[0] += times * int(popular.sum())
    found.items[1] += times * int((~popular).sum())
    predicted = [answer.stars for answer in answers if answer.stars is not None]
    if predicted:
        stars = np.concatenate(predicted)
        stars = stars[np.isfinite(stars)]
        buckets = np.searchsorted(_STARS, stars)
        found.stars += times * np.bincount(buckets, minlength=len(found.stars))
        found.star_sum += times * float(stars.sum())


class AnswerMetrics:
    """Counts the answers to Recommend and BatchRecommend."""

    def __init__(self, metrics: Metrics) -> None:
        """Registers the metrics."""
        # The first kind is UNSPECIFIED.
        self._kinds: dict[int, int] = dict.fromkeys(types_pb2.SubjectKind.values()[1:], 0)
        self._empty = 0
        self._pending: deque[_Answer] = deque()
        self._pending_items = 0
        self._stored = 0
        # The metrics are scraped in a separate thread.
        self._lock = threading.Lock()
        self._releases: OrderedDict[str, _ReleaseCounts] = OrderedDict()
        metrics.read_on_scrape(self._read)

    def count(
        self, release: GatewayRelease, kind: int, items: Int32, stars: Float64 | None
    ) -> None:
        """Counts a computed answer.

        Args:
            release: The release that answered.
            kind: The kind of the subject.
            items: The indexes of the recommended items (int32, n).
            stars: Their predicted stars (float, n); None if the release predicts none.
        """
        self._add_pending(_Answer(self._counts_of(release), kind, items, stars, 1))

    def count_stored(self, release: GatewayRelease, body: bytes) -> None:
        """Counts a stored answer; only a sample of them is parsed.

        Args:
            release: The release of the answer.
            body: The serialised RecommendResponse.
        """
        self._stored += 1
        if self._stored % SAMPLED_ONE_IN != 1:
            return
        response = pb.RecommendResponse.FromString(body)
        items = release.catalogue.items.indexes([item.item_id for item in response.items])
        stars = None
        if release.predicts_stars:
            stars = np.array([item.predicted_stars for item in response.items])
        kind, times = response.subject_kind, SAMPLED_ONE_IN
        self._add_pending(_Answer(self._counts_of(release), kind, items, stars, times))

    def _add_pending(self, answer: _Answer) -> None:
        self._pending.append(answer)
        self._pending_items += len(answer.items)
        if len(self._pending) >= _MAX_PENDING or self._pending_items >= _MAX_PENDING_ITEMS:
            self._count_pending()

    def _count_pending(self) -> None:
        with self._lock:
            self._pending_items = 0
            groups: dict[tuple[int, int], list[_Answer]] = {}
            while self._pending:
                answer = self._pending.popleft()
                self._kinds[answer.kind] = self._kinds.get(answer.kind, 0) + answer.times
                if len(answer.items):
                    groups.setdefault((id(answer.counts), answer.times), []).append(answer)
                else:
                    self._empty += answer.times
            for answers in groups.values():
                _add(answers)

    def _counts_of(self, release: GatewayRelease) -> _ReleaseCounts:
        found = self._releases.get(release.release_id)
        if found is None:
            counts = release.rating_counts
            popular = np.zeros(len(counts), np.bool_)
            most = np.argsort(-counts, kind="stable")[: max(1, int(len(counts) * _POPULAR_SHARE))]
            popular[most] = True
            found = self._releases[release.release_id] = _ReleaseCounts(popular)
            while len(self._releases) > _MAX_RELEASES:
                self._releases.popitem(last=False)
        return found

    def _read(self) -> Iterator[Metric]:
        self._count_pending()
        stars = HistogramMetricFamily(
            "marquee_predicted_stars",
            "Recommended items by predicted stars.",
            labels=["release_id"],
        )
        items: dict[tuple[str, str], float] = {}
        with self._lock:
            kinds = {
                (name.removeprefix(_KIND_PREFIX),): float(self._kinds[value])
                for name, value in types_pb2.SubjectKind.items()[1:]
            }
            empty = float(self._empty)
            for release_id, found in self._releases.items():
                counts = np.cumsum(found.stars).tolist()
                bounds = [*(f"{bound:g}" for bound in _STARS), "+Inf"]
                buckets = list(zip(bounds, counts, strict=True))
                stars.add_metric([release_id], buckets, found.star_sum)
                for name, count in zip(("popular", "other"), found.items, strict=True):
                    items[release_id, name] = count
        text = "Number of answers by kind of subject."
        yield counter("marquee_subjects", text, kinds, ("kind",))
        yield counter("marquee_empty_answers", "Number of answers without items.", {(): empty})
        yield stars
        yield counter(
            "marquee_recommended_items",
            "Number of recommended items; popular are the tenth of the catalogue with the most "
            "ratings.",
            items,
            ("release_id", "popularity"),
        )
