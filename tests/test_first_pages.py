"""First pages that come with a release: what asks for them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import ArtifactError
from marquee_services.gateway.first_pages import (
    PADDING,
    FirstPage,
    FirstPages,
    asks_for_first_page,
)
from marquee_services.gateway.page_bytes import id_bytes, items_bytes
from marquee_services.release.manifest import DataEntry, Manifest, ModelEntry, hash_folder
from marquee_services.scoring.scorer import Output

USERS, ITEMS = 9, 7
MODELS = ("mf", "ease")


def pages(**changes: Any) -> FirstPages:
    """Two users' pages; one is shorter."""
    made = FirstPages(
        np.array([2, 5], np.int32),
        np.array([[6, 0, 3], [1, PADDING, PADDING]], np.int32),
        np.array([[3.0, 2.0, 1.0], [0.5, 0.0, 0.0]]),
        np.array([[5.0, 4.0, 3.0], [2.0, 0.0, 0.0]], np.float32),
        np.array([[3, 1, 2], [0, 0, 0]], np.uint32),
        MODELS,
    )
    return replace(made, **changes)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of what lies in a folder."""
    entries = [ModelEntry(name, "cf", Output.STARS, "0" * 12, {}, {}) for name in MODELS]
    data = DataEntry("toy", "0" * 64, USERS, ITEMS, 1, 1.0, 5.0, ())
    return Manifest("r", "", data, tuple(entries), {}, {}, hash_folder(folder))


def test_a_page_is_the_best_that_were_asked_for(tmp_path: Path) -> None:
    """From files again: as many as wanted, fewer where there are no more, none of others."""
    pages().save(tmp_path)
    found = FirstPages.load(tmp_path, manifest_of(tmp_path))
    page = found.get(2, 2)
    assert page is not None
    assert page.items.tolist() == [6, 0]
    assert page.scores.tolist() == [3.0, 2.0]
    assert page.stars.tolist() == [5.0, 4.0]
    assert page.proposers == [("ease", "mf"), ("mf",)]
    short = found.get(5, 3)
    assert short is not None
    assert short.items.tolist() == [1]
    assert found.get(3, 2) is None
    assert found.get(8, 2) is None
    assert found.get(2, 4) is None


def test_a_release_without_first_pages_has_none(tmp_path: Path) -> None:
    """Those that were made before there were any are served as ever."""
    assert FirstPages.load(tmp_path, manifest_of(tmp_path)).get(2, 1) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"users": np.array([5, 2], np.int32)},
        {"users": np.array([2, 2], np.int32)},
        {"users": np.array([2, USERS], np.int32)},
        {"users": np.array([-1, 2], np.int32)},
        {"users": np.array([2, 5], np.int64)},
        {"items": np.full((2, 3), ITEMS, np.int32)},
        {"items": np.full((2, 3), PADDING - 1, np.int32)},
        {"scores": np.zeros((2, 2))},
        {"stars": np.zeros((1, 3), np.float32)},
        {"proposed": np.zeros((2, 3), np.int32)},
        {"items": np.array([[6, PADDING, 3], [1, PADDING, PADDING]], np.int32)},
        {"proposed": np.array([[3, 4, 2], [0, 0, 0]], np.uint32)},
    ],
)
def test_pages_that_do_not_fit_the_release_are_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """No index of a damaged page reaches an answer."""
    pages(**changes).save(tmp_path)
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
    assert asks_for_first_page(request)


@pytest.mark.parametrize(
    "change",
    [
        {"page_size": 21},
        {"page_size": -1},
        {"page_token": "t"},
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
    assert not asks_for_first_page(request)
    options = set(pb.RecommendOptions.DESCRIPTOR.fields_by_name)
    known = {"filter", "include_seen", "min_predicted_stars", "diversity", "release_id", "model"}
    assert options == known | {"include_metadata", "include_reasons"}


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """They could be neither sent nor ordered."""
    pages().save(tmp_path)
    stars = np.array([[5.0, np.nan, 3.0], [2.0, 0.0, 0.0]], np.float32)
    np.save(tmp_path / "first_pages" / "stars.npy", stars)
    with pytest.raises(ArtifactError, match="finite"):
        FirstPages.load(tmp_path, manifest_of(tmp_path))


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=64),
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(0.5, 5, width=32),
            st.lists(st.sampled_from(["mf", "ease", "m" * 20000]), unique=True).map(tuple),
        ),
        max_size=20,
    )
)
def test_the_bytes_of_a_page_are_those_of_its_messages(
    rows: list[tuple[str, float, float, tuple[str, ...]]],
) -> None:
    """Read as a message, they are the items; of any length."""
    page = FirstPage(
        np.arange(len(rows), dtype=np.int32),
        np.array([row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.float32),
        [row[3] for row in rows],
    )
    content = items_bytes(page, [id_bytes(row[0]) for row in rows])
    assert list(pb.RecommendResponse.FromString(content).items) == [
        pb.RecommendedItem(
            item_id=item_id, rank=rank, score=score, predicted_stars=stars, proposed_by=names
        )
        for rank, (item_id, score, stars, names) in enumerate(rows, start=1)
    ]
