"""Precomputes the first pages of a release, with the code and the engines of the servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Int32
from marquee_core.catalogue import Vocabulary
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.manifest import Manifest
from marquee_services.gateway.answering.item_bytes import serialized_items
from marquee_services.gateway.releases.precomputed import PrecomputedPages
from marquee_services.lists.computer import ListComputer
from marquee_services.lists.release import release_in_folder
from marquee_services.lists.request import ListRequest, serving_loaders
from marquee_services.lists.user_list import UserError, UserList
from marquee_trainer.publishing.config import PrecomputeConfig

OnUsers: TypeAlias = Callable[[int, int], None]
"""Called with the number of users whose pages have been computed, and that of all such users."""

# Users whose lists are in memory at a time.
_BLOCK_USERS = 1_024


def precompute_pages(
    manifest: Manifest,
    folder: Path,
    config: PrecomputeConfig,
    on_users: OnUsers = lambda _, __: None,
) -> PrecomputedPages:
    """Computes the first pages of the most active users, as a gateway answers Recommend.

    Small catalogues are ranked completely. In large ones, models retrieve candidates with the
    indexes of the release. The models are loaded from the files of the release, so they take memory
    in addition to those that were trained; the pages take about 1,200 bytes each, and the lists of
    a block of users a few megabytes.

    A user for whom a model abstains gets no page; gateways compute that page on request.

    Args:
        manifest: The manifest of the release, without pages.
        folder: The folder of its files.
        config: The number of users, and how catalogues are ranked.
        on_users: Reports the progress.

    Raises:
        ArtifactError: A model returns scores that are not finite.
    """
    matrix = RatingsMatrix.load(folder / "data", manifest.data.user_count, manifest.data.item_count)
    users = _most_active(matrix, config.users)
    if not len(users):
        return PrecomputedPages.none(matrix.user_count)
    loaded = release_in_folder(manifest, folder, serving_loaders())
    request = ListRequest(
        "", manifest.release_id, dense_limit=config.dense_limit, candidates=config.candidates
    )
    computer = ListComputer(loaded, request)
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        on_users(done, len(users))

    pages = [b""] * matrix.user_count
    for first in range(0, len(users), _BLOCK_USERS):
        block = users[first : first + _BLOCK_USERS]
        for user, found in zip(block.tolist(), computer.of_users(block, report), strict=True):
            pages[user] = _page(found, loaded.gateway.catalogue.items)
    is_small = loaded.gateway.item_count <= config.dense_limit
    return PrecomputedPages.of(pages, 0 if is_small else config.candidates)


def _most_active(matrix: RatingsMatrix, count: int) -> Int32:
    """Returns the users with the most ratings, without users who have none (int32, ascending)."""
    counts = np.diff(matrix.indptr)
    most_active = np.argsort(-counts, kind="stable")[:count]
    return np.sort(most_active[counts[most_active] > 0]).astype(np.int32)


def _page(found: UserList | UserError, items: Vocabulary) -> bytes:
    """Serialises a user's first page; empty if a model abstains or Recommend refuses the id."""
    if isinstance(found, UserError) or found.abstaining:
        return b""
    kind = pb.RecommendResponse(subject_kind=types_pb2.SUBJECT_KIND_KNOWN)
    return kind.SerializeToString() + serialized_items(
        items.encoded_ids(found.items), found.scores, found.stars, found.proposed_by, 1
    )
