"""Determines which items may be recommended, by the request's filter and the subject's ratings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from marquee.v1 import types_pb2
from marquee_core.arrays import Bool
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease


@dataclass(frozen=True)
class EligibleItems:
    """The items that may be recommended to a subject.

    Attributes:
        release: The release that answers.
        subject: The subject, resolved with that release.
        allowed: Whether the filter allows each item (bool, items; read-only); None to allow all.
        only_rated: Whether to leave out items without training ratings. Models know nothing about
            them, so their scores are meaningless.
        only_unseen: Whether to leave out items that the subject has rated.
    """

    release: GatewayRelease
    subject: ResolvedSubject
    allowed: Bool | None
    only_rated: bool
    only_unseen: bool

    @cached_property
    def mask(self) -> Bool:
        """Whether each item of the catalogue is eligible (bool, items)."""
        count = self.release.item_count
        mask = np.ones(count, np.bool_) if self.allowed is None else self.allowed.copy()
        if self.only_rated:
            mask[self.release.unrated_items] = False
        if self.only_unseen:
            mask[self.subject.profile.items] = False
        return mask

    @property
    def derivable_by_backend(self) -> bool:
        """Whether a backend can derive the eligible items from `allowed` and the profile.

        The query then has `new_only` set: the backend excludes items without training ratings, and
        items that the user has rated.
        """
        return self.only_rated and self.only_unseen

    @property
    def for_backend(self) -> Bool | None:
        """The mask to send to a backend (bool, items); None for none.

        It is `allowed` if the backend can derive the rest, otherwise `mask`.
        """
        return self.allowed if self.derivable_by_backend else self.mask


def filter_mask(
    release: GatewayRelease, item_filter: types_pb2.ItemFilter
) -> tuple[Bool, tuple[str, ...]]:
    """Applies a filter to the whole catalogue.

    A genre that the release does not contain is treated as a genre of no item.

    Args:
        release: The release whose catalogue is filtered.
        item_filter: The validated filter.

    Returns:
        Whether the filter allows each item (bool, items; a new array), and the filter's item ids
        that are not in the release.
    """
    allowed, unknown = allowed_items(release, item_filter)
    return np.ones(release.item_count, np.bool_) if allowed is None else allowed.copy(), unknown


def allowed_items(
    release: GatewayRelease, item_filter: types_pb2.ItemFilter
) -> tuple[Bool | None, tuple[str, ...]]:
    """Applies a filter like `filter_mask`, for callers that do not modify the array.

    Args:
        release: The release whose catalogue is filtered.
        item_filter: The validated filter.

    Returns:
        Whether the filter allows each item (bool, items; read-only), None to allow all; and the
        filter's item ids that are not in the release.
    """
    if not item_filter.ByteSize():
        return None, ()
    allowed = _by_metadata(release, item_filter)
    if not (item_filter.allowed_item_ids or item_filter.excluded_item_ids):
        return allowed, ()
    allowed = np.ones(release.item_count, np.bool_) if allowed is None else allowed.copy()
    unknown: list[str] = []
    if item_filter.allowed_item_ids:
        found = release.catalogue.items.indexes(item_filter.allowed_item_ids)
        is_allowed = np.zeros_like(allowed)
        is_allowed[found[found >= 0]] = True
        allowed &= is_allowed
        unknown += [n for n, i in zip(item_filter.allowed_item_ids, found, strict=True) if i < 0]
    if item_filter.excluded_item_ids:
        found = release.catalogue.items.indexes(item_filter.excluded_item_ids)
        allowed[found[found >= 0]] = False
        unknown += [n for n, i in zip(item_filter.excluded_item_ids, found, strict=True) if i < 0]
    return allowed, tuple(dict.fromkeys(unknown))


def _by_metadata(release: GatewayRelease, item_filter: types_pb2.ItemFilter) -> Bool | None:
    """Returns whether a filter's genres and years allow each item (bool, items; read-only).

    None if they allow all items.
    """
    year_min = item_filter.year_min if item_filter.HasField("year_min") else None
    year_max = item_filter.year_max if item_filter.HasField("year_max") else None
    genres = item_filter.genres_any, item_filter.genres_all, item_filter.genres_none
    if not any(genres) and year_min is None and year_max is None:
        return None
    key = *map(tuple, genres), year_min, year_max
    found: Bool | None = release.filter_masks.get(key)
    if found is not None:
        return found
    catalogue = release.catalogue
    allowed = np.ones(release.item_count, np.bool_)
    if item_filter.genres_any:
        allowed &= catalogue.has_any_genre(item_filter.genres_any)
    if item_filter.genres_all:
        allowed &= catalogue.has_all_genres(item_filter.genres_all)
    if item_filter.genres_none:
        allowed &= ~catalogue.has_any_genre(item_filter.genres_none)
    if year_min is not None:
        allowed &= (catalogue.years >= year_min) & (catalogue.years != 0)
    if year_max is not None:
        allowed &= (catalogue.years <= year_max) & (catalogue.years != 0)
    allowed.flags.writeable = False
    if allowed.nbytes <= release.filter_masks.maxsize:
        release.filter_masks[key] = allowed
    return allowed
