"""The first pages of known users, ranked and written when the release was made."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
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
from marquee_core.release.contents import FIRST_PAGES
from marquee_core.release.manifest import Manifest
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE

_ANSWERS, _OFFSETS = f"{FIRST_PAGES}/answers.npy", f"{FIRST_PAGES}/offsets.npy"


@dataclass(frozen=True)
class FirstPages:
    """What plain requests of known users are answered with while the whole ensemble is there.

    Attributes:
        answers: One after another, the users' answers as the bytes of RecommendResponses: the
            kind of the subject, and the items (uint8).
        offsets: Where each user's begins, and the end of the last (int64, users + 1); one without
            bytes is no answer.
    """

    answers: NDArray[np.uint8]
    offsets: Int64

    @classmethod
    def of(cls, answers: Sequence[bytes]) -> Self:
        """Takes each user's answer; empty for none."""
        offsets = np.zeros(len(answers) + 1, np.int64)
        np.cumsum([len(answer) for answer in answers], out=offsets[1:])
        return cls(np.frombuffer(b"".join(answers), np.uint8), offsets)

    @classmethod
    def none(cls, user_count: int) -> Self:
        """No user's page."""
        return cls(np.empty(0, np.uint8), np.zeros(user_count + 1, np.int64))

    def get(self, user: int) -> bytes:
        """A user's answer; empty for none."""
        return self.answers[self.offsets[user] : self.offsets[user + 1]].tobytes()

    def save(self, folder: Path) -> None:
        """Writes the arrays below a release's folder."""
        save_array(folder / _ANSWERS, self.answers)
        save_array(folder / _OFFSETS, self.offsets)

    @classmethod
    def load(cls, folder: Path, manifest: Manifest, item_ids: Vocabulary) -> Self:
        """Maps what `save` wrote; of a release without such files, no pages.

        Raises:
            ArtifactError: A file is missing, or they do not fit one another or the release.
        """
        users = manifest.data.user_count
        if not any(name.startswith(f"{FIRST_PAGES}/") for name in manifest.files):
            return cls.none(users)
        for name in (_ANSWERS, _OFFSETS):
            if name not in manifest.files:
                raise ArtifactError(f"{name} is missing")
        answers = load_array(folder / _ANSWERS, np.uint8, (None,))
        offsets = load_array(folder / _OFFSETS, np.int64, (users + 1,))
        if offsets[0] or (np.diff(offsets) < 0).any() or offsets[-1] != len(answers):
            raise ArtifactError("the offsets of first pages are not those of their bytes")
        pages = cls(answers, offsets)
        known = set(item_ids.ids(np.arange(len(item_ids))))
        for user in np.flatnonzero(np.diff(offsets)).tolist():
            _check(pages.get(user), known)
        return pages


def _check(page: bytes, item_ids: Set[str]) -> None:
    """Refuses what is not a known user's page of items of the release, and nothing besides.

    Raises:
        ArtifactError: So it is.
    """
    try:
        response = pb.RecommendResponse.FromString(page)
    except DecodeError as error:
        raise ArtifactError(f"a first page is no message: {error}") from error
    if {field.name for field, _ in response.ListFields()} != {"subject_kind", "items"}:
        raise ArtifactError("a first page holds other fields than its kind and items")
    if response.subject_kind != types_pb2.SUBJECT_KIND_KNOWN:
        raise ArtifactError("a first page is of no known user")
    if len(response.items) > DEFAULT_PAGE_SIZE:
        raise ArtifactError(f"a first page holds more than {DEFAULT_PAGE_SIZE} items")
    for item in response.items:
        if item.item_id not in item_ids:
            raise ArtifactError(f"a first page holds {item.item_id!r}, which the release does not")
        if not math.isfinite(item.score) or not math.isfinite(item.predicted_stars):
            raise ArtifactError("a first page holds scores that are not finite")


def asks_for_first_page(
    subject: types_pb2.Subject, page_size: int, options: pb.RecommendOptions
) -> bool:
    """Whether a known user's first page answers what is asked.

    Metadata and the release may be asked for; filters and whatever changes the order may not.
    """
    if subject.ratings or subject.liked_item_ids or not 0 <= page_size <= DEFAULT_PAGE_SIZE:
        return False
    if not options.ByteSize():
        return True
    plain = pb.RecommendOptions(
        include_metadata=options.include_metadata, release_id=options.release_id
    )
    if options.HasField("filter"):
        # One that is empty asks for nothing.
        plain.filter.SetInParent()
    return bool(options == plain)
