"""What a source says about an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ItemDetails:
    """The metadata of one item.

    Attributes:
        title: The title.
        year: The year of publication; 0 if it is unknown.
        genres: The genres.
        attributes: Other columns of the source, by name; empty values are left out.
    """

    title: str
    year: int = 0
    genres: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


Details = dict[str, ItemDetails]
