"""Builds a data set from rows and item metadata, with notes for the user."""

from __future__ import annotations

from dataclasses import replace

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.item_metadata import MetadataById, limit_attributes
from marquee_trainer.data.items import check_titles, join_ids
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.rows import Rows
from marquee_trainer.data.scale import Feedback, find_unrated_marker

_MERGED = {
    "last": "the latest one is used",
    "mean": "their mean is used",
    "max": "the highest one is used",
    "sum": "their sum is used",
}


def assemble(
    rows: Rows,
    metadata: MetadataById,
    source: str,
    options: ReadOptions,
    *,
    feedback: Feedback | None = None,
    keep_unrated: bool = False,
) -> tuple[RatingsDataset, list[str]]:
    """Builds a data set from rows and item metadata.

    Args:
        rows: The rows.
        metadata: Item metadata by item id; empty if the source has none.
        source: A description of where the ratings came from.
        options: The scale, and the treatment of repeated ratings and untitled items.
        feedback: The kind of feedback; None to detect it from the ratings, which are explicit if
            `options` has a scale.
        keep_unrated: Whether items without ratings stay in the catalogue.

    Returns:
        The data set, and notes for the user.

    Raises:
        RatingsError: There are no ratings, a rating is not on the scale, a rating is repeated
            although `options` forbids that, or too many items lack metadata.
    """
    if options.scale and feedback is None:
        feedback = Feedback.EXPLICIT
    items, metadata, joined = join_ids(rows.items, metadata)
    names = items.texts() if metadata else []
    untitled = check_titles(names, metadata, options.allow_untitled)
    metadata, shortened = limit_attributes(metadata)
    notes = [note for note in (joined, untitled, shortened) if note]
    if keep_unrated:
        unrated = len(metadata.keys() - set(names))
        if unrated:
            notes.append(f"{unrated:,} items without ratings stay in the catalogue")
    dataset = RatingsDataset.of(
        rows.users,
        items,
        rows.ratings,
        rows.timestamps,
        metadata,
        source,
        rows.where,
        scale=options.scale,
        feedback=feedback,
        on_repeat=options.on_repeat,
        keep_unrated=keep_unrated,
    )
    repeats = len(rows) - len(dataset)
    if repeats:
        how = options.on_repeat
        if how == "auto":
            how = "sum" if dataset.feedback is Feedback.IMPLICIT else "last"
        verb = "ratings repeat" if repeats > 1 else "rating repeats"
        notes.append(f"{repeats:,} {verb} a user and an item; {_MERGED[how]}")
    unrated_mark = None
    if dataset.feedback is Feedback.EXPLICIT and rows.ratings.distinct().min() <= 0:
        unrated_mark = find_unrated_marker(rows.ratings.array)
    if unrated_mark is not None:
        count = int((rows.ratings.array == unrated_mark).sum())
        notes.append(
            f"{count:,} of {len(rows):,} ratings are {unrated_mark:g}, apart from the others; if "
            "that means 'not rated', leave these rows out with --missing-values "
            f"{unrated_mark:g}"
        )
    if options.scale and dataset.feedback is Feedback.EXPLICIT:
        dataset = replace(dataset, scale=options.scale.stepped(rows.ratings.distinct()))
    return dataset, notes
