"""First pages that come with a release: what asks for them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import ArtifactError
from marquee_services.gateway.first_pages import FirstPages, asks_for_first_page
from marquee_services.release.manifest import DataEntry, Manifest, ModelEntry, hash_folder
from marquee_services.scoring.scorer import Output

ANSWERS = (b"", b"the second user's", b"", b"another's")


def manifest_of(folder: Path) -> Manifest:
    """The manifest of what lies in a folder."""
    entry = ModelEntry("mf", "cf", Output.STARS, "0" * 12, {}, {})
    data = DataEntry("toy", "0" * 64, len(ANSWERS), 7, 1, 1.0, 5.0, ())
    return Manifest("r", "", data, (entry,), {}, {}, hash_folder(folder))


def test_each_user_has_an_answer_or_none(tmp_path: Path) -> None:
    """From files again, byte by byte."""
    FirstPages.of(ANSWERS).save(tmp_path)
    found = FirstPages.load(tmp_path, manifest_of(tmp_path))
    assert tuple(found.get(user) for user in range(len(ANSWERS))) == ANSWERS


def test_a_release_without_first_pages_has_none(tmp_path: Path) -> None:
    """Those that were made before there were any are served as ever, and those of no user."""
    assert FirstPages.load(tmp_path, manifest_of(tmp_path)).get(2) == b""
    FirstPages.none(len(ANSWERS)).save(tmp_path)
    assert FirstPages.load(tmp_path, manifest_of(tmp_path)).get(2) == b""


@pytest.mark.parametrize(
    "offsets",
    [
        np.array([0, 0, 17, 17], np.int64),
        np.array([0, 0, 17, 17, 26], np.int32),
        np.array([1, 1, 17, 17, 26], np.int64),
        np.array([0, 17, 0, 17, 26], np.int64),
        np.array([0, 0, 17, 17, 25], np.int64),
        np.array([0, 0, 17, 17, 27], np.int64),
    ],
)
def test_pages_that_do_not_fit_the_release_are_refused(offsets: Any, tmp_path: Path) -> None:
    """No answer begins or ends within another."""
    replace(FirstPages.of(ANSWERS), offsets=offsets).save(tmp_path)
    with pytest.raises(ArtifactError):
        FirstPages.load(tmp_path, manifest_of(tmp_path))


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
