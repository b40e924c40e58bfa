"""The metadata of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from marquee_core.attributes import MAX_ITEM_BYTES, MAX_NAME_BYTES


@dataclass(frozen=True)
class ItemMetadata:
    """The metadata of one item.

    Attributes:
        title: The title.
        year: The year of publication; 0 if it is unknown.
        genres: The genres.
        attributes: Other columns of the source, by name; empty values are omitted.
    """

    title: str
    year: int = 0
    genres: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


MetadataById = dict[str, ItemMetadata]


def limit_attributes(metadata: MetadataById) -> tuple[MetadataById, str]:
    """Drops the longest attributes of items that exceed the limit of a release.

    Args:
        metadata: Item metadata by item id.

    Returns:
        The metadata, and a note on what was dropped; empty if nothing was.
    """
    shortened: MetadataById = {}
    dropped: dict[str, None] = {}
    for name, item in metadata.items():
        sizes = {key: _size(key, value) for key, value in item.attributes.items()}
        total = sum(sizes.values())
        if total <= MAX_ITEM_BYTES and all(len(key) * 4 <= MAX_NAME_BYTES for key in sizes):
            continue
        kept = dict(item.attributes)
        for key in sorted(sizes, key=lambda key: -sizes[key]):
            if total > MAX_ITEM_BYTES or len(key.encode()) > MAX_NAME_BYTES:
                total -= sizes[key]
                dropped[key] = None
                del kept[key]
        if len(kept) < len(item.attributes):
            shortened[name] = replace(item, attributes=kept)
    if not shortened:
        return metadata, ""
    shown = ", ".join(key[:40] for key in list(dropped)[:5])
    note = (
        f"{len(shortened):,} items have attributes of more than {MAX_ITEM_BYTES:,} bytes, or with "
        f"names of more than {MAX_NAME_BYTES}; the longest are left out ({shown})"
    )
    return {**metadata, **shortened}, note


def _size(name: str, value: str) -> int:
    return len(name.encode()) + len(value.encode())
