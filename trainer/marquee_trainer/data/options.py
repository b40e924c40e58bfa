"""How to read a source of ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from marquee_trainer.data.scale import RatingScale


@dataclass(frozen=True)
class ReadOptions:
    """How to read a source of ratings.

    Attributes:
        columns: The name, or the position counted from 1, of the column of each role (`user`,
            `item`, `rating`, `count`, `time`); empty to recognise columns by common names.
        query: The SQL query whose rows are the ratings, for a database.
        scale: The rating scale; None to detect it from the ratings.
        on_repeat: How repeated ratings of an item by a user are merged: one of `ON_REPEAT`.
        on_missing: Whether rows of a table that lack a user, an item, a rating or a time are an
            error or left out: one of `ON_MISSING`.
        missing_values: Ratings or counts that mean that there is none, such as `0`, or `negative`
            for all below 0; rows with them are left out.
        items: A file of item metadata; empty to use a file next to the ratings, if there is one.
        item_columns: The name, or the position counted from 1, of the column of each role (`id`,
            `title`, `year`, `genres`) in the file of item metadata; those that are not given are
            recognised.
        genre_separator: The separator between genres; empty to detect it.
        allow_untitled: Whether more than a fifth of the rated items may lack metadata.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    scale: RatingScale | None = None
    on_repeat: str = "auto"
    on_missing: str = "error"
    missing_values: Sequence[str] = ()
    items: str = ""
    item_columns: Mapping[str, str] = field(default_factory=dict)
    genre_separator: str = ""
    allow_untitled: bool = False
