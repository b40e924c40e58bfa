"""Checks ratings before training, to find faults of an export early."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.arrays import load_array
from marquee_core.errors import ArtifactError
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.scale import Feedback
from marquee_trainer.gate.config import GateConfig
from marquee_trainer.gate.drift import RatingsSummary, drift_checks

_RATINGS, _ITEMS = "data/ratings.npy", "data/rated_items.npy"
# The share of items with metadata from which on missing metadata is unusual. Items without metadata
# are titled by their ids.
_MIN_TITLED = 0.5


@dataclass(frozen=True)
class InputLimits:
    """Thresholds of the checks of ratings.

    Attributes:
        max_repeats: Largest share of rows that repeat a user and an item.
        max_unknown: Largest share of ratings of items without metadata, where most items have some.
        max_future: Largest share of ratings with a time in the future.
        max_equal: Largest share of ratings with the same value.
        max_drop: Largest share of ratings, users or items that may be lost since the release in
            production.
    """

    max_repeats: float = 0.5
    max_unknown: float = 0.2
    max_future: float = 0.01
    max_equal: float = 0.98
    max_drop: float = GateConfig.refused_drop


def input_checks(
    dataset: RatingsDataset, limits: InputLimits, before: RatingsSummary | None
) -> Iterator[Check]:
    """Checks ratings.

    Args:
        dataset: The ratings.
        limits: The thresholds.
        before: The ratings of the release in production; None if there is none.
    """
    count = len(dataset)
    rows = count + dataset.repeats
    yield _share("repeats", dataset.repeats, rows, limits.max_repeats, "rows repeat a rating")
    catalogue = dataset.catalogue
    titled = np.array(
        [
            catalogue.title(index) != name or bool(catalogue.years[index])
            for index, name in enumerate(catalogue.items.ids(range(len(catalogue))))
        ],
        np.bool_,
    )
    if titled.mean() >= _MIN_TITLED:
        unknown = int((~titled[dataset.items]).sum())
        text = "ratings are of items without metadata"
        yield _share("unknown items", unknown, count, limits.max_unknown, text)
    if dataset.has_timestamps:
        future = int((dataset.timestamps > time.time()).sum())
        yield _share("times", future, count, limits.max_future, "ratings are from the future")
    if dataset.feedback is Feedback.EXPLICIT:
        _, counts = np.unique(dataset.ratings, return_counts=True)
        text = "ratings are equal"
        yield _share("spread of ratings", int(counts.max()), count, limits.max_equal, text)
    if before is not None:
        config = GateConfig(refused_drop=limits.max_drop)
        yield from drift_checks(summary_of(dataset), before, config)


def summary_of(dataset: RatingsDataset) -> RatingsSummary:
    """Summarises a data set for the comparison with the release in production."""
    return RatingsSummary(
        dataset.ratings,
        len(np.unique(dataset.users)),
        len(np.unique(dataset.items)),
        dataset.scale.low,
        dataset.scale.high,
    )


def summary_of_production(store: ReleaseStore) -> RatingsSummary | None:
    """Summarises the ratings of the release in production.

    Returns None if there is none, or if it is damaged, which the gate reports.

    Raises:
        OSError: The store cannot be read.
    """
    try:
        current = store.production()
        if current is None:
            return None
        manifest = store.manifest(current.release_id)
        with tempfile.TemporaryDirectory(prefix="marquee-input-") as cache:
            folder = store.open(manifest, lambda path: path in (_RATINGS, _ITEMS), Path(cache))
            ratings = np.array(load_array(folder / _RATINGS, np.float32, (None,)))
            items = len(np.unique(load_array(folder / _ITEMS, np.int32, (None,))))
    except ArtifactError:
        return None
    data = manifest.data
    return RatingsSummary(ratings, data.user_count, items, data.rating_min, data.rating_max)


def _share(name: str, part: int, whole: int, most: float, what: str) -> Check:
    share = part / max(1, whole)
    is_over = share > most
    text = f"{part:,} of {whole:,} {what} ({share:.1%})"
    if is_over:
        text += f", at most {most:.0%} are expected"
    decision = Decision.REFUSE if is_over else Decision.PROMOTE
    return Check(name, decision, text, {"share": share, "most": most})
