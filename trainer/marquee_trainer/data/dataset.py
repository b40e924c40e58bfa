"""Ratings as compact arrays, with user ids and item metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.data.chunked import ChunkedArray, gather
from marquee_trainer.data.errors import SHOWN_PROBLEMS, RatingsError
from marquee_trainer.data.grouped import SortedRatings, sort_grouped
from marquee_trainer.data.ids import IdColumn
from marquee_trainer.data.item_metadata import ItemMetadata
from marquee_trainer.data.repeats import merge
from marquee_trainer.data.scale import Feedback, RatingScale, detect_feedback
from marquee_trainer.data.sorting import sort_rows

# Up to this number of items, unrated items cost models little.
_SMALL_CATALOGUE = 5_000

Ids = Sequence[str] | NDArray[np.bytes_] | pl.Series | IdColumn


@dataclass(frozen=True)
class RatingsDataset:
    """All ratings of a source, sorted by user and item.

    The order of the source's rows affects only `source_places` and `file_order`.

    Attributes:
        users: User index of each rating (int32, n).
        items: Item index of each rating (int32, n).
        ratings: The ratings; for implicit feedback, the strength of each interaction
            (float32, n).
        timestamps: Seconds since 1970; all 0 if the source has no timestamps (int64, n).
        user_ids: The users' ids.
        catalogue: The items' ids and metadata.
        source: A description of where the ratings came from.
        scale: The rating scale.
        source_places: The position of each row in the source (int32 or int64, n). Repeated ratings
            that were merged count as one row.
        has_timestamps: Whether the source has timestamps.
        feedback: Whether the ratings are explicit or implicit feedback.
        attributes: Further metadata of the items: for each name, one text per item, empty if
            unknown.
        repeats: Number of rows of the source that repeat the user and the item of another row.
    """

    users: Int32
    items: Int32
    ratings: Float32
    timestamps: Int64
    user_ids: Vocabulary
    catalogue: Catalogue
    source: str
    scale: RatingScale
    source_places: Int32 | Int64
    has_timestamps: bool = True
    feedback: Feedback = Feedback.EXPLICIT
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    repeats: int = 0

    @classmethod
    def of(
        cls,
        users: Ids,
        items: Ids,
        ratings: Float32 | ChunkedArray[np.float32],
        timestamps: Int32 | Int64 | ChunkedArray[Any] | None,
        metadata: Mapping[str, ItemMetadata],
        source: str,
        name_row: Callable[[int], str] = lambda row: f"row {row + 1}",
        *,
        scale: RatingScale | None = None,
        feedback: Feedback | None = None,
        on_repeat: str = "error",
        keep_unrated: bool = False,
    ) -> RatingsDataset:
        """Builds a data set from rows.

        Args:
            users: User ids (n).
            items: Item ids (n).
            ratings: The ratings (float32, n).
            timestamps: Seconds since 1970 (int32 or int64, n); None if the source has none.
            metadata: Item metadata by item id. Items without metadata get their id as title.
            source: A description of where the ratings came from.
            name_row: Describes where a row was read, for error messages.
            scale: The rating scale; None to detect it from the ratings.
            feedback: The kind of feedback; None to detect it from the ratings.
            on_repeat: How repeated ratings of an item by a user are merged: one of `ON_REPEAT`.
                `auto` sums implicit feedback, and keeps the latest rating otherwise.
            keep_unrated: Whether items of `metadata` without ratings stay in the catalogue.

        Raises:
            RatingsError: There are no ratings, a rating is not on the scale, or, with
                `on_repeat="error"`, a user rates an item twice.
        """
        if not len(ratings):
            raise RatingsError(f"{source}: there are no ratings")
        given = ChunkedArray.of(ratings)
        times = None if timestamps is None else ChunkedArray.of(timestamps)
        distinct = given.distinct()
        feedback = feedback or detect_feedback(distinct, len(given))
        valid = np.isfinite(distinct) if scale is None else scale.contains(distinct)
        if not valid.all():
            raise _off_scale(given.array, scale, source, name_row)
        user_column, item_column = _column(users), _column(items)
        rows = sort_grouped(user_column, item_column, given, times)
        repeats = 0
        if rows is None:
            how = on_repeat
            if how == "auto":
                how = "sum" if feedback is Feedback.IMPLICIT else "last"
            rows = _sorted(user_column, item_column, given, times, how, source, name_row)
            repeats = len(given) - len(rows.ratings)
        if feedback is Feedback.IMPLICIT:
            scale = RatingScale.of_implicit(rows.ratings if repeats else distinct)
        elif scale is None:
            # The scale is that of the ratings as they were given, not of their means.
            scale = RatingScale.of(distinct)
        items_of = rows.items
        item_names = item_column.names
        if keep_unrated:
            item_names, items_of = _with_unrated(item_names, items_of, metadata)
        catalogue, attributes = _catalogue(Vocabulary(item_names), metadata)
        return cls(
            users=rows.users,
            items=items_of,
            ratings=rows.ratings,
            timestamps=rows.times,
            user_ids=Vocabulary(user_column.names),
            catalogue=catalogue,
            source=source,
            scale=scale,
            source_places=rows.places,
            has_timestamps=timestamps is not None,
            feedback=feedback,
            attributes=attributes,
            repeats=repeats,
        )

    def __len__(self) -> int:
        return len(self.ratings)

    @cached_property
    def file_order(self) -> Int64:
        """The row of the data set for each row of the source, in the source's order (int64, n)."""
        rows = np.empty(len(self), dtype=np.int64)
        rows[self.source_places] = np.arange(len(self))
        return rows

    @cached_property
    def by_user(self) -> RatingsMatrix:
        """Users' ratings of items (CSR): user → items, and (user, item) → rating."""
        return RatingsMatrix.of(
            self.users, self.items, self.ratings, len(self.user_ids), len(self.catalogue)
        )

    @cached_property
    def by_item(self) -> RatingsMatrix:
        """Items' ratings by users (CSC): item → users."""
        return RatingsMatrix.of(
            self.items, self.users, self.ratings, len(self.catalogue), len(self.user_ids)
        )

    @cached_property
    def modelled_items(self) -> Int32 | None:
        """The rated items, ascending, if only these are modelled (int32, m); None for all items.

        The size of models grows with the catalogue. They exclude the items without ratings if these
        are the majority of more than 5,000 items.
        """
        count = len(self.catalogue)
        rated = np.unique(self.items)
        if count <= _SMALL_CATALOGUE or 2 * len(rated) >= count:
            return None
        return rated

    def of_modelled_items(self) -> RatingsDataset:
        """Returns the same ratings, in the same rows, with the catalogue of the modelled items."""
        items = self.modelled_items
        if items is None:
            return self
        known = {
            name: [values[item] for item in items.tolist()]
            for name, values in self.attributes.items()
        }
        return replace(
            self,
            items=np.searchsorted(items, self.items).astype(np.int32),
            catalogue=self.catalogue.take(items),
            attributes=known,
        )

    def matrix(self, rows: Int64) -> RatingsMatrix:
        """Builds the ratings matrix of some rows.

        Args:
            rows: The rows, in any order (int64, n).
        """
        return RatingsMatrix.of(
            self.users[rows],
            self.items[rows],
            self.ratings[rows],
            len(self.user_ids),
            len(self.catalogue),
            self.timestamps[rows],
        )

    def from_stars(self, stars: float) -> float:
        """Converts a number of stars to the equivalent rating of this data set.

        See `RatingScale.from_stars`. For implicit feedback, every interaction is a like, so any
        number of stars corresponds to the lowest strength of the scale. Only recorded dislikes are
        below it.
        """
        if self.feedback is Feedback.IMPLICIT:
            return min(self.scale.low, float(self.ratings.max()))
        return self.scale.from_stars(stars)

    def rating(self, user: int, item: int) -> float | None:
        """Returns a user's rating of an item; None if the user has not rated it."""
        seen = self.by_user.seen(user)
        position = int(np.searchsorted(seen, item))
        if position == len(seen) or seen[position] != item:
            return None
        return float(self.by_user.ratings[self.by_user.indptr[user] + position])

    def fingerprint(self, rows: Int64 | None = None) -> str:
        """Computes the SHA-256 digest of some rows, in hexadecimal.

        It covers ids, ratings and timestamps, and is independent of the order of the rows and the
        format of the source.

        Args:
            rows: The rows, in any order (int64, n); None for all rows.
        """
        rows = np.arange(len(self)) if rows is None else np.sort(rows)
        digest = hashlib.sha256()
        for index, names in ((self.users, self.user_ids), (self.items, self.catalogue.items)):
            # The distinct ids of these rows, and the index of each row's id among them.
            used, codes = np.unique(index[rows], return_inverse=True)
            ids = names.ids(used)
            # Ids may contain line feeds, but not NUL.
            separator = "\0" if any("\n" in name for name in ids) else "\n"
            digest.update(separator.join(ids).encode() + b"\0")
            digest.update(codes.astype("<i4").tobytes())
        digest.update(self.ratings[rows].astype("<f4").tobytes())
        digest.update(self.timestamps[rows].astype("<i8").tobytes())
        return digest.hexdigest()


def _column(ids: Ids) -> IdColumn:
    return ids if isinstance(ids, IdColumn) else IdColumn.of(ids)


def _sorted(
    users: IdColumn,
    items: IdColumn,
    ratings: ChunkedArray[np.float32],
    timestamps: ChunkedArray[Any] | None,
    on_repeat: str,
    source: str,
    name_row: Callable[[int], str],
) -> SortedRatings:
    """Sorts rows in any order by user and item, and merges those that repeat both.

    Raises:
        RatingsError: With `on_repeat="error"`, a user rates an item twice.
    """
    order, users_of, items_of = sort_rows(users.codes, items.codes)
    is_again = (users_of[1:] == users_of[:-1]) & (items_of[1:] == items_of[:-1])
    again = np.flatnonzero(is_again) + 1
    times = timestamps
    if times is None:
        times = ChunkedArray([np.zeros(len(ratings), dtype=np.int32)])
    if not len(again):
        stars = ratings.pick(order, np.float32)
        return SortedRatings(users_of, items_of, stars, times.pick(order, np.int64), order)
    if on_repeat == "error":
        raise _repeated(users, items, order, again, source, name_row)
    cells = users.codes * np.int64(len(items.names)) + items.codes
    kept, merged = merge(cells, ratings.array, times.array, on_repeat)
    order = np.argsort(cells[kept])
    rows = kept[order]
    return SortedRatings(
        users.codes[rows],
        items.codes[rows],
        merged[order],
        times.pick(rows, np.int64),
        order,
    )


def _off_scale(
    ratings: Float32,
    scale: RatingScale | None,
    source: str,
    name_row: Callable[[int], str],
) -> RatingsError:
    valid = np.isfinite(ratings) if scale is None else scale.contains(ratings)
    expected = f"a rating from {scale.low:g} to {scale.high:g}" if scale else "a finite rating"
    problems = [
        f"{name_row(row)}: {ratings[row]:g} is not {expected}"
        for row in np.flatnonzero(~valid)[:SHOWN_PROBLEMS].tolist()
    ]
    return RatingsError.listing(f"{source}: malformed rows", problems, int((~valid).sum()))


def _repeated(
    users: IdColumn,
    items: IdColumn,
    order: Int32 | Int64,
    again: Int64,
    source: str,
    name_row: Callable[[int], str],
) -> RatingsError:
    """Creates the error for repeated ratings.

    Args:
        users: The users of the rows.
        items: The items of the rows.
        order: The rows, sorted by user and item.
        again: The positions in `order` of rows that repeat the row before them.
        source: A description of where the ratings came from.
        name_row: Describes where a row was read.
    """
    shown = again[:SHOWN_PROBLEMS]
    problems = [
        f"{name_row(row)}: user {users.id(row)} rates item {items.id(row)} again, after "
        f"{name_row(before)}"
        for row, before in zip(order[shown].tolist(), order[shown - 1].tolist(), strict=True)
    ]
    return RatingsError.listing(f"{source}: repeated ratings", problems, len(again))


def _with_unrated(
    names: NDArray[np.bytes_], index: Int32, metadata: Mapping[str, ItemMetadata]
) -> tuple[NDArray[np.bytes_], Int32]:
    """Adds unrated items of `metadata`; returns all item ids and the new index of each row."""
    rated = [name.decode() for name in names.tolist()]
    column = IdColumn.of([*rated, *metadata])
    return column.names, gather(column.codes[: len(rated)], [index])


def _catalogue(
    items: Vocabulary, metadata: Mapping[str, ItemMetadata]
) -> tuple[Catalogue, dict[str, list[str]]]:
    """Builds the catalogue and the items' attributes by name."""
    names = items.ids(range(len(items)))
    if not metadata:
        return Catalogue.of(items, names, [0] * len(names), [()] * len(names)), {}
    known = [metadata.get(name) or ItemMetadata(name) for name in names]
    catalogue = Catalogue.of(
        items,
        [item.title for item in known],
        [item.year for item in known],
        [item.genres for item in known],
    )
    keys = dict.fromkeys(key for item in known for key in item.attributes)
    return catalogue, {key: [item.attributes.get(key, "") for item in known] for key in keys}
