"""Precomputes the first pages of a release, with the code and the engines of the servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class FirstPages:
    """The result of precomputing.

    Attributes:
        pages: The pages.
        users: The number of users whose pages were computed.
        wanted: The number of users whose pages would have been computed without a time limit.
    """

    pages: PrecomputedPages
    users: int
    wanted: int


def precompute_pages(
    manifest: Manifest,
    folder: Path,
    config: PrecomputeConfig,
    on_users: OnUsers = lambda _, __: None,
    clock: Callable[[], float] = time.monotonic,
) -> FirstPages:
    """Computes the first pages of the most active users, as a gateway answers Recommend.

    Small catalogues are ranked completely. In large ones, models retrieve candidates with the
    indexes of the release. The models are loaded from the files of the release, so they take memory
    in addition to those that were trained; the pages take about 1,200 bytes each, and the lists of
    a block of users a few megabytes.

    A user for whom a model abstains gets no page, and neither does a user for whom there is no time
    left; gateways compute these pages on request.

    Args:
        manifest: The manifest of the release, without pages.
        folder: The folder of its files.
        config: The number of users, the time limit, and how catalogues are ranked.
        on_users: Reports the progress.
        clock: Returns the current time, in seconds.

    Raises:
        ArtifactError: A model returns scores that are not finite.
    """
    matrix = RatingsMatrix.load(folder / "data", manifest.data.user_count, manifest.data.item_count)
    started = clock()
    users = _most_active(matrix, config.users)
    if not len(users):
        return FirstPages(PrecomputedPages.none(matrix.user_count), 0, 0)
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
    end = None if config.seconds is None else started + config.seconds
    for block in _blocks_in_time(users, end, clock):
        for user, found in zip(block.tolist(), computer.of_users(block, report), strict=True):
            pages[user] = _page(found, loaded.gateway.catalogue.items)
    is_small = loaded.gateway.item_count <= config.dense_limit
    return FirstPages(
        PrecomputedPages.of(pages, 0 if is_small else config.candidates), done, len(users)
    )


def _most_active(matrix: RatingsMatrix, count: int) -> Int32:
    """Returns the users with the most ratings, most first, without users who have none (int32)."""
    counts = np.diff(matrix.indptr)
    most_active = np.argsort(-counts, kind="stable")[:count]
    return most_active[counts[most_active] > 0].astype(np.int32)


def _blocks_in_time(users: Int32, end: float | None, clock: Callable[[], float]) -> Iterator[Int32]:
    """Yields blocks of users as long as the next one will probably be done in time.

    Args:
        users: All users (int32, n).
        end: The time at which all blocks must be done; None for no limit.
        clock: Returns the current time, in seconds.

    Yields:
        The users of a block, ascending (int32).
    """
    longest_s = 0.0
    for first in range(0, len(users), _BLOCK_USERS):
        started = clock()
        if end is not None and (started >= end or started + longest_s > end):
            return
        yield np.sort(users[first : first + _BLOCK_USERS])
        longest_s = max(longest_s, clock() - started)


def _page(found: UserList | UserError, items: Vocabulary) -> bytes:
    """Serialises a user's first page; empty if a model abstains or Recommend refuses the id."""
    if isinstance(found, UserError) or found.abstaining:
        return b""
    kind = pb.RecommendResponse(subject_kind=types_pb2.SUBJECT_KIND_KNOWN)
    return kind.SerializeToString() + serialized_items(
        items.encoded_ids(found.items), found.scores, found.stars, found.proposed_by, 1
    )
