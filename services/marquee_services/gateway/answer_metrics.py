"""Metrics of what is recommended: to whom, with which predicted stars, and how popular it is.

Answers are only remembered when they are given; they are counted many at a time, or when the
metrics are scraped, which costs a fraction of counting each.
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
from marquee_services.server.metrics import Metrics, counter

# A stored answer is not parsed each time; one in so many is, and counts for all of them.
SAMPLED_ONE_IN = 32
_REMEMBERED = 256
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


class _Answer(NamedTuple):
    """An answer to count.

    Attributes:
        counts: The counts of the release that answered.
        kind: The kind of the subject.
        items: The indexes of the recommended items (int32, n).
        stars: Their predicted stars (float, n); None for none.
        times: How many answers it stands for.
    """

    counts: _OfRelease
    kind: int
    items: Int32
    stars: Float64 | None
    times: int


def _add(answers: Sequence[_Answer]) -> None:
    """Counts answers of one release that stand for the same number of answers each."""
    found, times = answers[0].counts, answers[0].times
    popular = found.is_popular[np.concatenate([answer.items for answer in answers])]
    found.items[0] += times * int(popular.sum())
    found.items[1] += times * int((~popular).sum())
    predicted = [answer.stars for answer in answers if answer.stars is not None]
    if predicted:
        stars = np.concatenate(predicted)
        stars = stars[np.isfinite(stars)]
        places = np.searchsorted(_STARS, stars)
        found.stars += times * np.bincount(places, minlength=len(found.stars))
        found.star_sum += times * float(stars.sum())


class AnswerMetrics:
    """Counts the answers to Recommend and BatchRecommend."""

    def __init__(self, metrics: Metrics) -> None:
        """Registers the metrics."""
        # The first kind is the unspecified one.
        self._kinds: dict[int, int] = dict.fromkeys(types_pb2.SubjectKind.values()[1:], 0)
        self._empty = 0
        self._remembered: deque[_Answer] = deque()
        self._stored = 0
        # The metrics are scraped in a thread of their own.
        self._lock = threading.Lock()
        self._releases: OrderedDict[str, _OfRelease] = OrderedDict()
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
        self._remember(_Answer(self._of(release), kind, items, stars, 1))

    def count_stored(self, release: GatewayRelease, body: bytes) -> None:
        """Counts a stored answer, a sample of which is parsed.

        Args:
            release: The release that the answer is of.
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
        self._remember(_Answer(self._of(release), kind, items, stars, times))

    def _remember(self, answer: _Answer) -> None:
        self._remembered.append(answer)
        if len(self._remembered) >= _REMEMBERED:
            self._count_remembered()

    def _count_remembered(self) -> None:
        with self._lock:
            groups: dict[tuple[int, int], list[_Answer]] = {}
            while self._remembered:
                answer = self._remembered.popleft()
                self._kinds[answer.kind] = self._kinds.get(answer.kind, 0) + answer.times
                if len(answer.items):
                    groups.setdefault((id(answer.counts), answer.times), []).append(answer)
                else:
                    self._empty += answer.times
            for answers in groups.values():
                _add(answers)

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

    def _read(self) -> Iterator[Metric]:
        self._count_remembered()
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
        text = "Number of answers by the kind of their subject."
        yield counter("marquee_subjects", text, kinds, ("kind",))
        yield counter("marquee_empty_answers", "Number of answers without items.", {(): empty})
        yield stars
        yield counter(
            "marquee_recommended_items",
            "Recommended items: popular are the tenth of the catalogue with the most ratings.",
            items,
            ("release_id", "popularity"),
        )
