"""Precomputed recommendations: the first pages of known users, stored in the release."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Int64, load_array, save_array
from marquee_core.catalogue import Vocabulary
from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.contents import PRECOMPUTED
from marquee_core.release.manifest import Manifest
from marquee_services.gateway.settings import MIN_CANDIDATES
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE

_ANSWERS, _OFFSETS = f"{PRECOMPUTED}/answers.npy", f"{PRECOMPUTED}/offsets.npy"
PAGE_RANKING = f"{PRECOMPUTED}/ranking.json"
"""The file with the number of candidates, present only if the pages are those of candidates."""


@dataclass(frozen=True)
class PrecomputedPages:
    """The first page of each known user, ranked by the full ensemble.

    Attributes:
        answers: The concatenated pages, as serialised RecommendResponses with only the subject kind
            and the items (uint8).
        offsets: The start of each user's page in `answers`, followed by the end of the last one
            (int64, users + 1). Users without a precomputed page have an empty one.
        candidates: The number of candidates that each model retrieved for a page; 0 if the whole
            catalogue was ranked. A gateway whose settings differ would compute other pages.
    """

    answers: NDArray[np.uint8]
    offsets: Int64
    candidates: int = 0

    @classmethod
    def of(cls, answers: Sequence[bytes], candidates: int = 0) -> Self:
        """Packs the serialised page of each user, in the order of the user indexes.

        Args:
            answers: The pages; an empty one for each user without a precomputed page.
            candidates: The number of candidates that each model retrieved; 0 for the whole
                catalogue.
        """
        offsets = np.zeros(len(answers) + 1, np.int64)
        np.cumsum([len(answer) for answer in answers], out=offsets[1:])
        return cls(np.frombuffer(b"".join(answers), np.uint8), offsets, candidates)

    @classmethod
    def none(cls, user_count: int) -> Self:
        """Returns the pages of a release without precomputed pages."""
        return cls(np.empty(0, np.uint8), np.zeros(user_count + 1, np.int64))

    def get(self, user: int) -> bytes:
        """Returns the serialised page of a user; empty if there is none."""
        return self.answers[self.offsets[user] : self.offsets[user + 1]].tobytes()

    def save(self, folder: Path) -> None:
        """Writes the files into a release's folder."""
        save_array(folder / _ANSWERS, self.answers)
        save_array(folder / _OFFSETS, self.offsets)
        if self.candidates:
            (folder / PAGE_RANKING).write_text(json.dumps({"candidates": self.candidates}) + "\n")

    @classmethod
    def load(cls, folder: Path, manifest: Manifest) -> Self:
        """Memory-maps the files that `save` wrote, and checks their offsets.

        Args:
            folder: The release's folder.
            manifest: The release's manifest.

        Returns:
            The pages; empty ones if the release has no such files.

        Raises:
            ArtifactError: A file is missing or damaged, or the offsets do not match the pages.
        """
        users = manifest.data.user_count
        if not any(name.startswith(f"{PRECOMPUTED}/") for name in manifest.files):
            return cls.none(users)
        for name in (_ANSWERS, _OFFSETS):
            if name not in manifest.files:
                raise ArtifactError(f"{name} is missing")
        answers = load_array(folder / _ANSWERS, np.uint8, (None,))
        offsets = load_array(folder / _OFFSETS, np.int64, (users + 1,))
        if offsets[0] or (np.diff(offsets) < 0).any() or offsets[-1] != len(answers):
            raise ArtifactError("the offsets of the precomputed pages do not match their bytes")
        return cls(answers, offsets, candidates_of_pages(folder, manifest))

    def check(self, item_ids: Vocabulary, matrix: RatingsMatrix) -> None:
        """Checks the page of every user.

        Args:
            item_ids: The ids of the release's items.
            matrix: The training ratings; no user's page may contain an item that the user rated.

        Raises:
            ArtifactError: A page is not valid for this release and user.
        """
        index_of = {name: i for i, name in enumerate(item_ids.ids(np.arange(len(item_ids))))}
        rated_items = int(np.count_nonzero(matrix.item_counts))
        for user in np.flatnonzero(np.diff(self.offsets)).tolist():
            items, seen = _check_page(self.get(user), index_of), matrix.seen(user)
            if not items and len(seen) < rated_items:
                raise ArtifactError(
                    "a precomputed page has no items, although its user has not rated every item"
                )
            if not set(items).isdisjoint(seen.tolist()):
                raise ArtifactError(
                    "a precomputed page has an item that its user rated: it belongs to another user"
                )


def candidates_of_pages(folder: Path, manifest: Manifest) -> int:
    """Reads the number of candidates for the pages of a release, `PrecomputedPages.candidates`.

    Args:
        folder: The release's folder.
        manifest: The release's manifest.

    Raises:
        ArtifactError: The file is damaged.
    """
    if PAGE_RANKING not in manifest.files:
        return 0  # Only pages of a completely ranked catalogue have no such file.
    found = parse_json((folder / PAGE_RANKING).read_bytes(), PAGE_RANKING)
    candidates = found.get("candidates") if isinstance(found, dict) else None
    if type(candidates) is not int or candidates < MIN_CANDIDATES:
        raise ArtifactError(f"damaged {PAGE_RANKING}: candidates must be at least {MIN_CANDIDATES}")
    return candidates


def _check_page(page: bytes, index_of: Mapping[str, int]) -> list[int]:
    """Checks that bytes are a known user's page of items of the release.

    Args:
        page: The bytes.
        index_of: The index of each item of the release, by id.

    Returns:
        The indexes of the page's items.

    Raises:
        ArtifactError: The bytes are not a valid page.
    """
    try:
        response = pb.RecommendResponse.FromString(page)
    except DecodeError as error:
        raise ArtifactError(f"a precomputed page is not a RecommendResponse: {error}") from error
    # A user who has rated every item has a page without items.
    if {field.name for field, _ in response.ListFields()} - {"items"} != {"subject_kind"}:
        raise ArtifactError("a precomputed page may have only the fields subject_kind and items")
    if response.subject_kind != types_pb2.SUBJECT_KIND_KNOWN:
        raise ArtifactError("the subject kind of a precomputed page must be SUBJECT_KIND_KNOWN")
    if len(response.items) > DEFAULT_PAGE_SIZE:
        raise ArtifactError(f"a precomputed page has more than {DEFAULT_PAGE_SIZE} items")
    for item in response.items:
        if item.item_id not in index_of:
            raise ArtifactError(
                f"a precomputed page has item {item.item_id!r}, which is not in the release"
            )
        if not math.isfinite(item.score) or not math.isfinite(item.predicted_stars):
            raise ArtifactError("a precomputed page has scores that are not finite")
    items = [index_of[item.item_id] for item in response.items]
    if len(set(items)) != len(items):
        raise ArtifactError("a precomputed page has an item twice")
    return items


def can_use_precomputed_page(
    subject: types_pb2.Subject, page_size: int, options: pb.RecommendOptions
) -> bool:
    """Returns whether a user's precomputed page, or the beginning of it, answers a request.

    The request may name a release and include metadata. Ratings, filters and all options that may
    change the items or their order rule out the precomputed page.
    """
    if subject.ratings or subject.liked_item_ids or not 0 <= page_size <= DEFAULT_PAGE_SIZE:
        return False
    if not options.ByteSize():
        return True
    plain = pb.RecommendOptions(
        include_metadata=options.include_metadata, release_id=options.release_id
    )
    if options.HasField("filter"):
        # An empty filter equals no filter.
        plain.filter.SetInParent()
    return bool(options == plain)
