"""Which items of a release qualify."""

from __future__ import annotations

import numpy as np

from marquee.v1 import types_pb2
from marquee_core.arrays import Bool
from marquee_services.gateway.releases.release import GatewayRelease


def eligible_items(
    release: GatewayRelease, item_filter: types_pb2.ItemFilter
) -> tuple[Bool, tuple[str, ...]]:
    """Applies a filter to the whole catalogue.

    Args:
        release: The release.
        item_filter: The filter, whose form is valid. A genre that the release does not have is
            one that no item has.

    Returns:
        Which items qualify (bool, items), and the item ids that the release does not know.
    """
    catalogue = release.catalogue
    eligible = np.ones(release.item_count, dtype=np.bool_)
    unknown: list[str] = []
    bits = catalogue.genre_bits
    if item_filter.genres_any:
        eligible &= (bits & np.uint32(catalogue.genre_mask(item_filter.genres_any))) != 0
    if item_filter.genres_all:
        names = {name.casefold() for name in item_filter.genres_all}
        mask = catalogue.genre_mask(names)
        if mask.bit_count() < len(names):
            eligible[:] = False
        eligible &= (bits & np.uint32(mask)) == mask
    if item_filter.genres_none:
        eligible &= (bits & np.uint32(catalogue.genre_mask(item_filter.genres_none))) == 0
    if item_filter.HasField("year_min"):
        eligible &= (catalogue.years >= item_filter.year_min) & (catalogue.years != 0)
    if item_filter.HasField("year_max"):
        eligible &= (catalogue.years <= item_filter.year_max) & (catalogue.years != 0)
    if item_filter.allowed_item_ids:
        allowed = catalogue.items.indexes(item_filter.allowed_item_ids)
        mask_allowed = np.zeros_like(eligible)
        mask_allowed[allowed[allowed >= 0]] = True
        eligible &= mask_allowed
        unknown += [n for n, i in zip(item_filter.allowed_item_ids, allowed, strict=True) if i < 0]
    if item_filter.excluded_item_ids:
        excluded = catalogue.items.indexes(item_filter.excluded_item_ids)
        eligible[excluded[excluded >= 0]] = False
        unknown += [
            n for n, i in zip(item_filter.excluded_item_ids, excluded, strict=True) if i < 0
        ]
    return eligible, tuple(dict.fromkeys(unknown))
