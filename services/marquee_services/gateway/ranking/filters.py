"""Which items of a release a request's filter allows."""

from __future__ import annotations

import numpy as np

from marquee.v1 import types_pb2
from marquee_core.arrays import Bool
from marquee_services.gateway.releases.release import GatewayRelease


def eligible_items(
    release: GatewayRelease, item_filter: types_pb2.ItemFilter
) -> tuple[Bool, tuple[str, ...]]:
    """Applies a filter to the whole catalogue.

    A genre that the release does not know is a genre that no item has.

    Args:
        release: The release whose catalogue is filtered.
        item_filter: The filter, already validated.

    Returns:
        Which items are eligible (bool, items), and the filter's item ids that are not in the
        release.
    """
    catalogue = release.catalogue
    eligible = np.ones(release.item_count, dtype=np.bool_)
    unknown: list[str] = []
    if item_filter.genres_any:
        eligible &= catalogue.has_any_genre(item_filter.genres_any)
    if item_filter.genres_all:
        eligible &= catalogue.has_all_genres(item_filter.genres_all)
    if item_filter.genres_none:
        eligible &= ~catalogue.has_any_genre(item_filter.genres_none)
    if item_filter.HasField("year_min"):
        eligible &= (catalogue.years >= item_filter.year_min) & (catalogue.years != 0)
    if item_filter.HasField("year_max"):
        eligible &= (catalogue.years <= item_filter.year_max) & (catalogue.years != 0)
    if item_filter.allowed_item_ids:
        allowed = catalogue.items.indexes(item_filter.allowed_item_ids)
        is_allowed = np.zeros_like(eligible)
        is_allowed[allowed[allowed >= 0]] = True
        eligible &= is_allowed
        unknown += [n for n, i in zip(item_filter.allowed_item_ids, allowed, strict=True) if i < 0]
    if item_filter.excluded_item_ids:
        excluded = catalogue.items.indexes(item_filter.excluded_item_ids)
        eligible[excluded[excluded >= 0]] = False
        unknown += [
            n for n, i in zip(item_filter.excluded_item_ids, excluded, strict=True) if i < 0
        ]
    return eligible, tuple(dict.fromkeys(unknown))
