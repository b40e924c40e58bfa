"""Precomputed pages: which requests they answer, and which files are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.catalogue import Vocabulary
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.contents import PRECOMPUTED
from marquee_core.release.manifest import DataEntry, Manifest, ModelEntry, hash_folder
from marquee_services.gateway.releases.precomputed import PrecomputedPages, can_use_precomputed_page

ITEMS = Vocabulary.of(["a", "b", "c"])
# The second user rated "a", the last one "c".
MATRIX = RatingsMatrix.of(
    np.array([1, 3]), np.array([0, 2]), np.array([5.0, 4.0], np.float32), 4, 3
)


def page(*items: str, **other: Any) -> bytes:
    """Return a serialised page of a known user with the given items and other fields."""
    fields = {"subject_kind": types_pb2.SUBJECT_KIND_KNOWN, **other}
    found = [pb.RecommendedItem(item_id=item, rank=n + 1) for n, item in enumerate(items)]
    return pb.RecommendResponse(items=found, **fields).SerializeToString()


ANSWERS = (b"", page("b", "c"), b"", page("a"))
ENDS = np.cumsum([0, *map(len, ANSWERS)])


def manifest_of(folder: Path) -> Manifest:
    """Return a manifest of the files in a folder."""
    entry = ModelEntry("mf", "cf", Output.STARS, "0" * 12, {}, {})
    data = DataEntry("toy", "0" * 64, len(ANSWERS), 3, 1, 1.0, 5.0, ())
    return Manifest("r", "", data, (entry,), {}, {}, hash_folder(folder))


def loaded(folder: Path) -> PrecomputedPages:
    """Load and check the precomputed pages in a folder."""
    pages = PrecomputedPages.load(folder, manifest_of(folder))
    pages.check(ITEMS, MATRIX)
    return pages


def test_each_user_has_a_page_or_none(tmp_path: Path) -> None:
    """Pages read from files equal the pages that were written."""
    PrecomputedPages.of(ANSWERS).save(tmp_path)
    assert tuple(loaded(tmp_path).get(user) for user in range(len(ANSWERS))) == ANSWERS


def test_a_release_may_have_no_precomputed_pages(tmp_path: Path) -> None:
    """A release without the files, or without users in them, has no pages."""
    assert loaded(tmp_path).get(2) == b""
    PrecomputedPages.none(len(ANSWERS)).save(tmp_path)
    assert loaded(tmp_path).get(2) == b""


@pytest.mark.parametrize(
    "offsets",
    [
        ENDS[:-1],
        ENDS.astype(np.int32),
        ENDS + np.array([1, 1, 0, 0, 0]),
        ENDS[[0, 2, 0, 2, 4]],
        ENDS - np.array([0, 0, 0, 0, 1]),
        ENDS + np.array([0, 0, 0, 0, 1]),
        # An offset inside the second user's page.
        ENDS + np.array([0, 3, 0, 0, 0]),
        ENDS - np.array([0, 0, 3, 3, 0]),
    ],
)
def test_pages_that_do_not_fit_the_release_are_refused(offsets: Any, tmp_path: Path) -> None:
    """Offsets that overlap, leave gaps or split a page are refused."""
    replace(PrecomputedPages.of(ANSWERS), offsets=offsets).save(tmp_path)
    with pytest.raises(ArtifactError):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"is no message", "is not a RecommendResponse"),
        (page("a", "nowhere"), "'nowhere', which is not in the release"),
        (page("a", subject_kind=types_pb2.SUBJECT_KIND_VISITOR), "must be SUBJECT_KIND_KNOWN"),
        (page(), "has no items, although"),
        (page("a", unknown_item_ids=["b"]), "may have only the fields"),
        (page(*"a" * 21), "more than 20"),
        (page("a", "a"), "an item twice"),
        (page("b", "c"), "another user"),
    ],
)
def test_bytes_that_are_not_a_page_of_the_release_are_refused(
    answer: bytes, message: str, tmp_path: Path
) -> None:
    """The bytes would be sent to callers unchanged."""
    PrecomputedPages.of((*ANSWERS[:-1], answer)).save(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        loaded(tmp_path)


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """A page with NaN as a score cannot be served."""
    response = pb.RecommendResponse.FromString(ANSWERS[1])
    response.items[1].score = math.nan
    PrecomputedPages.of((*ANSWERS[:-1], response.SerializeToString())).save(tmp_path)
    with pytest.raises(ArtifactError, match="not finite"):
        loaded(tmp_path)


@pytest.mark.parametrize("name", ["answers", "offsets"])
def test_a_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    """Otherwise, every answer would be computed without anyone noticing."""
    PrecomputedPages.of(ANSWERS).save(tmp_path)
    (tmp_path / PRECOMPUTED / f"{name}.npy").unlink()
    with pytest.raises(ArtifactError, match=f"{name}.npy is missing"):
        loaded(tmp_path)


PLAIN = pb.RecommendRequest(subject=types_pb2.Subject(user_id="u"))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"page_size": 20},
        {"options": {}},
        {"options": {"filter": {}}},
        {"options": {"include_metadata": True}},
        {"options": {"release_id": "r"}},
    ],
)
def test_a_plain_request_uses_the_precomputed_page(change: dict[str, Any]) -> None:
    """The request may ask for metadata and name a release."""
    request = pb.RecommendRequest(**change)
    request.MergeFrom(PLAIN)
    assert can_use_precomputed_page(request.subject, request.page_size, request.options)


@pytest.mark.parametrize(
    "change",
    [
        {"page_size": 21},
        {"page_size": -1},
        {"subject": {"ratings": [{"item_id": "i", "stars": 4.0}]}},
        {"subject": {"liked_item_ids": ["i"]}},
        {"options": {"include_seen": True}},
        {"options": {"min_predicted_stars": 0.0}},
        {"options": {"diversity": 0.1}},
        {"options": {"model": "mf"}},
        {"options": {"include_reasons": True}},
        {"options": {"filter": {"genres_any": ["Drama"]}}},
    ],
)
def test_a_request_with_other_options_is_computed(change: dict[str, Any]) -> None:
    """Every other field may change the items, or needs scores."""
    request = pb.RecommendRequest(**change)
    request.MergeFrom(PLAIN)
    assert not can_use_precomputed_page(request.subject, request.page_size, request.options)
    options = set(pb.RecommendOptions.DESCRIPTOR.fields_by_name)
    known = {"filter", "include_seen", "min_predicted_stars", "diversity", "release_id", "model"}
    assert options == known | {"include_metadata", "include_reasons"}
