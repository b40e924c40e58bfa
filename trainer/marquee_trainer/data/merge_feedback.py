"""Merges recorded feedback into a data set of given ratings.

The latest rating of an item by a user is the one that counts. Events are converted to ratings in
the same way as in a gateway that folds them in (`marquee_core.feedback.event_ratings`), so a
release that was trained on an event scores like the previous release with the event folded in:

| event                       | explicit ratings                | implicit feedback             |
|-----------------------------|---------------------------------|-------------------------------|
| rating                      | its stars, limited to the scale | a strength, limited likewise  |
| like                        | the top of the scale            | the greatest strength         |
| dislike                     | the bottom of the scale         | keeps the item off the list   |
| play, at least 70 % watched | three quarters of the way up    | 3/4 of the greatest strength  |
| other plays, views, clicks  | nothing                         | nothing                       |

A play counts only for items that the user has not rated, liked or disliked, in the log or in the
given ratings.
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
class Merged:
    """Ratings with recorded feedback.

    Attributes:
        dataset: The data set.
        used: Number of recorded events that are among its ratings.
        replaced: Number of given ratings that a later event replaces.
        outdated: Number of events that are older than the given rating, or are plays of an item
            that is rated.
        invalid: Number of events whose ids are no valid ids of a data set.
        new_users: Number of users that the given ratings lack.
        new_items: Number of items that the given catalogue lacks.
        forgotten_users: Number of users with given ratings who were forgotten since.
        forgotten_ratings: Number of their given ratings, which are left out.
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
        """What is worth telling about the merge, in sentences."""
        yield (
            f"{self.used:,} recorded ratings are merged: {self.replaced:,} replace given ones, "
            f"{self.new_users:,} users and {self.new_items:,} items are new"
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
    """Ratings as columns; those of recorded events are at the end."""

    users: IdColumn
    items: IdColumn
    ratings: Float32
    times: Int64

    def __len__(self) -> int:
        return len(self.ratings)

    def take(self, rows: Int64 | Bool) -> _Rows:
        """Some of the rows."""
        return _Rows(
            _take(self.users, rows), _take(self.items, rows), self.ratings[rows], self.times[rows]
        )

    def cells(self) -> Int64:
        """A number for each row that identifies its pair of user and item (int64, n)."""
        cells: Int64 = self.users.codes * np.int64(len(self.items.names)) + self.items.codes
        return cells


def merge_feedback(dataset: RatingsDataset, recorded: RecordedFeedback) -> Merged:
    """Merges recorded feedback into a data set.

    Ratings that a user gave before being forgotten are left out, whether they are recorded or
    given; given ratings without times all are. Users and items that the data set lacks join it.

    Args:
        dataset: The given ratings.
        recorded: The recorded feedback.

    Returns:
        The merged ratings. The rows of events follow those of the source in `file_order`.

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
        place = np.searchsorted(given_cells, event_cells, sorter=order)
        place = order[np.minimum(place, len(order) - 1)]
        outweighed |= rated & (given.times[place] > events.times)
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
    # Ratings that a later event replaces are no fault of the source.
    merged = replace(merged, scale=_scale(dataset, merged), repeats=dataset.repeats)
    return Merged(
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
    """The given ratings in the source's order, and how many users they lack as forgotten ones."""
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
    # The second until which a user's ratings are forgotten; -1 for users who were not.
    until = np.full(len(user_names), -1, dtype=np.int64)
    for index, name in enumerate(user_names):
        at = recorded.forgotten.get(user_digest(name))
        if at is not None:
            until[index] = at // _US
    # A time that is yet to come is an error, and does not show that the user came back.
    dropped = until[users] >= 0
    if dataset.has_timestamps:
        dropped &= (times <= until[users]) | (times > time.time())
    return rows.take(~dropped), len(np.unique(users[dropped]))


def _event_rows(dataset: RatingsDataset, recorded: RecordedFeedback) -> tuple[_Rows, Bool, int]:
    """The events as rows in the order of the log, which of them are plays, and the invalid ones."""
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
        # As in the gateway: the lowest strength says that there was no interaction.
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
    """The given scale; in implicit feedback that of the merged strengths.

    The step becomes finer, or 0, if events are rated in finer steps.
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
    """A column of names that are sorted; names without a row are left out."""
    used, compact = np.unique(codes, return_inverse=True)
    return IdColumn(IdColumn.of([names[code] for code in used]).names, compact.astype(np.int32))


def _take(column: IdColumn, rows: Int64 | Bool) -> IdColumn:
    used, compact = np.unique(column.codes[rows], return_inverse=True)
    return IdColumn(column.names[used], compact.astype(np.int32))


def _new(before: Vocabulary, after: Vocabulary) -> int:
    """How many ids of one vocabulary another one lacks."""
    return int((before.indexes(after.ids(range(len(after)))) < 0).sum())
