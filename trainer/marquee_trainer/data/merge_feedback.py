"""Merges recorded feedback into the ratings of a source.

The latest rating of each user and item is used, by the time at which it was given. Events are
converted to ratings in the same way as in a gateway that folds them in
(`marquee_core.feedback.event_ratings`), so a release that is trained on an event scores like its
predecessor with the event folded in:

| event                       | explicit ratings                | implicit feedback             |
|-----------------------------|---------------------------------|-------------------------------|
| rating                      | its stars, limited to the scale | a strength, limited likewise  |
| like                        | the top of the scale            | the greatest strength         |
| dislike                     | the bottom of the scale         | keeps the item off the list   |
| play, at least 70 % watched | three quarters of the way up    | 3/4 of the greatest strength  |
| other plays, views, clicks  | nothing                         | nothing                       |

A play counts only for items that the user has not rated, liked or disliked, in the log or in the
source.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from marquee_core.arrays import Bool, Float32, Int64
from marquee_core.catalogue import Vocabulary
from marquee_core.feedback.event_ratings import event_stars, is_explicit
from marquee_core.feedback.events import user_digest
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.ids import IdColumn, id_problem
from marquee_trainer.data.item_metadata import ItemMetadata
from marquee_trainer.data.recorded_feedback import RecordedFeedback
from marquee_trainer.data.scale import Feedback, RatingScale

_US = 1_000_000  # microseconds in a second
# Below every strength of implicit feedback, so it counts neither as a like nor as relevant.
DISLIKED_STRENGTH = -1.0


@dataclass(frozen=True)
class MergedFeedback:
    """A data set with recorded feedback, and statistics of the merge.

    Attributes:
        dataset: The data set.
        used: Number of recorded events among its ratings.
        replaced: Number of the source's ratings that a later event replaces.
        outdated: Number of events that are older than the source's rating, or are plays of a rated
            item.
        invalid: Number of events with ids that are not valid in a data set.
        new_users: Number of users that the source lacks.
        new_items: Number of items that the source's catalogue lacks.
        forgotten_users: Number of users of the source who were forgotten since.
        forgotten_ratings: Number of their ratings in the source, which are left out.
    """

    dataset: RatingsDataset
    used: int
    replaced: int
    outdated: int
    invalid: int
    new_users: int
    new_items: int
    forgotten_users: int
    forgotten_ratings: int

    def notes(self) -> Iterator[str]:
        """Yields notes on the merge for the user."""
        yield (
            f"{self.used:,} recorded ratings are merged: {self.replaced:,} replace given ones, "
            f"new users: {self.new_users:,}, new items: {self.new_items:,}"
        )
        if self.outdated:
            yield f"{self.outdated:,} recorded ratings are outweighed by given ones"
        if self.invalid:
            yield f"{self.invalid:,} recorded ratings have ids that are not valid, and are left out"
        if self.forgotten_users:
            yield (
                f"{self.forgotten_ratings:,} given ratings of {self.forgotten_users:,} forgotten "
                "users are left out"
            )


@dataclass(frozen=True)
class _Rows:
    """Ratings as columns, followed by those of recorded events."""

    users: IdColumn
    items: IdColumn
    ratings: Float32
    times: Int64

    def __len__(self) -> int:
        return len(self.ratings)

    def take(self, rows: Int64 | Bool) -> _Rows:
        """Selects rows, by index or by mask."""
        return _Rows(
            _take(self.users, rows), _take(self.items, rows), self.ratings[rows], self.times[rows]
        )

    def cells(self) -> Int64:
        """A number for each row that identifies its (user, item) pair (int64, n)."""
        cells: Int64 = self.users.codes * np.int64(len(self.items.names)) + self.items.codes
        return cells


def merge_feedback(dataset: RatingsDataset, recorded: RecordedFeedback) -> MergedFeedback:
    """Merges recorded feedback into a data set.

    Ratings that a user gave before being forgotten are left out, and so are all ratings of
    forgotten users if the source has no times. New users and items are added to the data set.

    Args:
        dataset: The ratings of the source.
        recorded: The recorded feedback.

    Returns:
        The merged ratings. In `file_order`, events follow the rows of the source.

    Raises:
        RatingsError: No ratings are left.
    """
    given, forgotten_users = _without_forgotten(dataset, recorded)
    events, plays, invalid = _event_rows(dataset, recorded)
    rows = _Rows(
        IdColumn.concatenated([given.users, events.users]),
        IdColumn.concatenated([given.items, events.items]),
        np.concatenate([given.ratings, events.ratings]),
        np.concatenate([given.times, events.times]),
    )
    cells = rows.cells()
    given_cells, event_cells = np.split(cells, [len(given)])
    rated = np.isin(event_cells, given_cells)
    outweighed = rated & plays
    if dataset.has_timestamps and len(given):
        order = np.argsort(given_cells)
        match = np.searchsorted(given_cells, event_cells, sorter=order)
        match = order[np.minimum(match, len(order) - 1)]
        outweighed |= rated & (given.times[match] > events.times)
    kept = np.concatenate([np.ones(len(given), dtype=np.bool_), ~outweighed])
    rows = rows.take(kept)
    if not len(rows):
        raise RatingsError(
            f"{dataset.source}: no ratings are left without those of forgotten users"
        )
    used = int((~outweighed).sum())
    merged = RatingsDataset.of(
        rows.users,
        rows.items,
        rows.ratings,
        rows.times if dataset.has_timestamps else None,
        _metadata(dataset),
        f"{dataset.source} with {used} recorded ratings" if used else dataset.source,
        feedback=dataset.feedback,
        on_repeat="last",
        keep_unrated=True,
    )
    # Ratings that a later event replaces are not a fault of the source.
    merged = replace(merged, scale=_scale(dataset, merged), repeats=dataset.repeats)
    return MergedFeedback(
        dataset=merged,
        used=used,
        replaced=int((rated & ~outweighed).sum()),
        outdated=int(outweighed.sum()),
        invalid=invalid,
        new_users=_new(dataset.user_ids, merged.user_ids),
        new_items=_new(dataset.catalogue.items, merged.catalogue.items),
        forgotten_users=forgotten_users,
        forgotten_ratings=len(dataset) - len(given),
    )


def _without_forgotten(dataset: RatingsDataset, recorded: RecordedFeedback) -> tuple[_Rows, int]:
    """The remaining ratings in the source's order, and the number of forgotten users."""
    order = dataset.file_order
    users, times = dataset.users[order].astype(np.int64), dataset.timestamps[order]
    user_names = dataset.user_ids.ids(range(len(dataset.user_ids)))
    item_names = dataset.catalogue.items.ids(range(len(dataset.catalogue)))
    rows = _Rows(
        _column(user_names, users),
        _column(item_names, dataset.items[order].astype(np.int64)),
        dataset.ratings[order],
        times,
    )
    if not recorded.forgotten:
        return rows, 0
    # The second until which a user's ratings are forgotten; -1 for users who were not forgotten.
    until = np.full(len(user_names), -1, dtype=np.int64)
    for index, name in enumerate(user_names):
        at = recorded.forgotten.get(user_digest(name))
        if at is not None:
            until[index] = at // _US
    # A time in the future is an error, and does not mean that the user has returned.
    dropped = until[users] >= 0
    if dataset.has_timestamps:
        dropped &= (times <= until[users]) | (times > time.time())
    return rows.take(~dropped), len(np.unique(users[dropped]))


def _event_rows(dataset: RatingsDataset, recorded: RecordedFeedback) -> tuple[_Rows, Bool, int]:
    """The events as rows in the log's order, a mask of plays, and the number of invalid events."""
    low, high = dataset.scale.low, dataset.scale.high
    is_implicit = dataset.feedback is Feedback.IMPLICIT
    events = sorted(
        ((event, user) for user, found in recorded.events.items() for event in found),
        key=lambda pair: pair[0].position,
    )
    valid = [
        (event, user)
        for event, user in events
        if id_problem(user) is None and id_problem(event.item_id) is None
    ]
    ratings = np.array(
        [event_stars(event.kind, event.value, low, high) for event, _ in valid], dtype=np.float32
    )
    if is_implicit:
        # As in the gateway, the lowest strength means that there was no interaction.
        ratings[ratings <= low] = DISLIKED_STRENGTH
    rows = _Rows(
        IdColumn.of([user for _, user in valid]),
        IdColumn.of([event.item_id for event, _ in valid]),
        ratings,
        np.array([event.time_us // _US for event, _ in valid], dtype=np.int64),
    )
    plays = np.array([not is_explicit(event.kind) for event, _ in valid], dtype=np.bool_)
    return rows, plays, len(events) - len(valid)


def _scale(dataset: RatingsDataset, merged: RatingsDataset) -> RatingScale:
    """The scale of the source or, for implicit feedback, that of the merged strengths.

    The step becomes smaller, or 0, if events have ratings in smaller steps.
    """
    scale = dataset.scale
    if dataset.feedback is Feedback.IMPLICIT or not scale.step:
        return merged.scale if dataset.feedback is Feedback.IMPLICIT else scale
    fits = bool((((merged.ratings - np.float32(scale.low)) % scale.step) == 0).all())
    return scale if fits else scale.stepped(merged.ratings)


def _metadata(dataset: RatingsDataset) -> dict[str, ItemMetadata]:
    """The metadata of the data set's items."""
    catalogue = dataset.catalogue
    return {
        name: ItemMetadata(
            catalogue.title(index),
            int(catalogue.years[index]),
            catalogue.item_genres(index),
            {key: values[index] for key, values in dataset.attributes.items() if values[index]},
        )
        for index, name in enumerate(catalogue.items.ids(range(len(catalogue))))
    }


def _column(names: list[str], codes: Int64) -> IdColumn:
    """Builds a column from sorted names; names without a row are omitted."""
    used, compact = np.unique(codes, return_inverse=True)
    return IdColumn(IdColumn.of([names[code] for code in used]).names, compact.astype(np.int32))


def _take(column: IdColumn, rows: Int64 | Bool) -> IdColumn:
    used, compact = np.unique(column.codes[rows], return_inverse=True)
    return IdColumn(column.names[used], compact.astype(np.int32))


def _new(before: Vocabulary, after: Vocabulary) -> int:
    """Number of ids that only the second vocabulary has."""
    return int((before.indexes(after.ids(range(len(after)))) < 0).sum())
