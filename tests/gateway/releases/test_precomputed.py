"""First pages that come with a release: what asks for them, and what is refused."""

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
from marquee_core.release.contents import FIRST_PAGES
from marquee_core.release.manifest import DataEntry, Manifest, ModelEntry, hash_folder
from marquee_services.gateway.releases.precomputed import FirstPages, asks_for_first_page

ITEMS = Vocabulary.of(["a", "b", "c"])


def page(*items: str, **other: Any) -> bytes:
    """A known user's page of items, with other fields besides."""
    fields = {"subject_kind": types_pb2.SUBJECT_KIND_KNOWN, **other}
    found = [pb.RecommendedItem(item_id=item, rank=n + 1) for n, item in enumerate(items)]
    return pb.RecommendResponse(items=found, **fields).SerializeToString()


ANSWERS = (b"", page("b", "c"), b"", page("a"))
ENDS = np.cumsum([0, *map(len, ANSWERS)])


def manifest_of(folder: Path) -> Manifest:
    """The manifest of what lies in a folder."""
    entry = ModelEntry("mf", "cf", Output.STARS, "0" * 12, {}, {})
    data = DataEntry("toy", "0" * 64, len(ANSWERS), 3, 1, 1.0, 5.0, ())
    return Manifest("r", "", data, (entry,), {}, {}, hash_folder(folder))


def loaded(folder: Path) -> FirstPages:
    """What lies in a folder."""
    return FirstPages.load(folder, manifest_of(folder), ITEMS)


def test_each_user_has_an_answer_or_none(tmp_path: Path) -> None:
    """From files again, byte by byte."""
    FirstPages.of(ANSWERS).save(tmp_path)
    assert tuple(loaded(tmp_path).get(user) for user in range(len(ANSWERS))) == ANSWERS


def test_a_release_without_first_pages_has_none(tmp_path: Path) -> None:
    """Those that were made before there were any are served as ever, and those of no user."""
    assert loaded(tmp_path).get(2) == b""
    FirstPages.none(len(ANSWERS)).save(tmp_path)
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
        # Within the second user's page.
        ENDS + np.array([0, 3, 0, 0, 0]),
        ENDS - np.array([0, 0, 3, 3, 0]),
    ],
)
def test_pages_that_do_not_fit_the_release_are_refused(offsets: Any, tmp_path: Path) -> None:
    """No answer begins or ends within another."""
    replace(FirstPages.of(ANSWERS), offsets=offsets).save(tmp_path)
    with pytest.raises(ArtifactError):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"no message", "no message"),
        (page("a", "nowhere"), "'nowhere', which the release does not"),
        (page("a", subject_kind=types_pb2.SUBJECT_KIND_VISITOR), "no known user"),
        (page(), "other fields"),
        (page("a", unknown_item_ids=["b"]), "other fields"),
        (page(*"a" * 21), "more than 20"),
    ],
)
def test_what_is_no_page_of_the_release_is_refused(
    answer: bytes, message: str, tmp_path: Path
) -> None:
    """Its bytes would go to callers as they are."""
    FirstPages.of((*ANSWERS[:-1], answer)).save(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        loaded(tmp_path)


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """So they are when they are computed."""
    response = pb.RecommendResponse.FromString(ANSWERS[1])
    response.items[1].score = math.nan
    FirstPages.of((*ANSWERS[:-1], response.SerializeToString())).save(tmp_path)
    with pytest.raises(ArtifactError, match="not finite"):
        loaded(tmp_path)


@pytest.mark.parametrize("name", ["answers", "offsets"])
def test_a_part_of_the_first_pages_is_refused(name: str, tmp_path: Path) -> None:
    """Users are not computed in silence because a file is missing."""
    FirstPages.of(ANSWERS).save(tmp_path)
    (tmp_path / FIRST_PAGES / f"{name}.npy").unlink()
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
def test_a_plain_request_asks_for_a_first_page(change: dict[str, Any]) -> None:
    """So does one for metadata, or of a named release."""
    request = pb.RecommendRequest(**change)
    request.MergeFrom(PLAIN)
    assert asks_for_first_page(request.subject, request.page_size, request.options)


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
def test_what_may_change_the_page_is_computed(change: dict[str, Any]) -> None:
    """Every other field of a request may lead to other items, or needs their scores."""
    request = pb.RecommendRequest(**change)
    request.MergeFrom(PLAIN)
    assert not asks_for_first_page(request.subject, request.page_size, request.options)
    options = set(pb.RecommendOptions.DESCRIPTOR.fields_by_name)
    known = {"filter", "include_seen", "min_predicted_stars", "diversity", "release_id", "model"}
    assert options == known | {"include_metadata", "include_reasons"}
