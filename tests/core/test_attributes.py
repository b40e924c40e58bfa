"""Free-form attributes of items are stored in a release, and damaged ones are refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.attributes import MAX_ITEM_BYTES, Attributes
from marquee_core.errors import ArtifactError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
ROWS = st.lists(st.lists(st.text(max_size=6), min_size=4, max_size=4), max_size=5)


@given(st.sets(NAMES, min_size=4, max_size=4), ROWS)
def test_attributes_are_loaded_as_they_were_saved(names: set[str], rows: list[list[str]]) -> None:
    """Attributes may be any text in any language, and empty values are omitted."""
    order = sorted(names)
    columns = {name: [row[place] for row in rows] for place, name in enumerate(order)}
    with tempfile.TemporaryDirectory() as folder:
        Attributes.of(columns, len(rows)).save(Path(folder))
        found = Attributes.load(Path(folder), len(rows))
    expected = [{k: v for k, v in zip(order, row, strict=True) if v} for row in rows]
    assert [found.of_item(item) for item in range(len(found))] == expected


def test_the_size_of_the_attributes_of_an_item_is_limited() -> None:
    """The error names the item, and a size equal to the limit is allowed."""
    fits = "x" * (MAX_ITEM_BYTES - len("plot"))
    assert Attributes.of({"plot": ["", fits]}, 2).of_item(1) == {"plot": fits}
    with pytest.raises(ValueError, match="the attributes of item 1 exceed 32,768 bytes"):
        Attributes.of({"plot": ["", fits + "x"]}, 2)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("item_offsets", lambda a: np.full_like(a, 1)),
        ("value_offsets", lambda a: a[::-1]),
        ("value_offsets", lambda a: np.array([0, 2, 3, 7])),
        ("value_offsets", lambda a: a[:-1]),
        ("value_names", lambda a: a + 1),
        ("value_names", lambda a: -a - 1),
        ("text", lambda a: a | 0x80),
        ("text", lambda a: a[:-1]),
        ("names", lambda a: np.array([b"\xff", b"b"])),
    ],
)
def test_damaged_attributes_are_refused(
    file: str, damage: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Unreadable attributes are not loaded, so look-ups cannot fail later."""
    attributes = Attributes.of({"a": ["é", ""], "b": ["éx", "x"]}, 2)
    assert attributes.value_offsets.tolist() == [0, 2, 5, 6]
    attributes.save(tmp_path)
    Attributes.load(tmp_path, 2)
    path = tmp_path / f"{file}.npy"
    array = np.load(path)
    np.save(path, damage(array).astype(array.dtype, copy=False))
    with pytest.raises(ArtifactError):
        Attributes.load(tmp_path, 2)


def test_a_value_that_begins_inside_a_character_is_refused(tmp_path: Path) -> None:
    """The text as a whole may nevertheless be valid UTF-8."""
    Attributes.of({"a": ["é", "é"]}, 2).save(tmp_path)
    np.save(tmp_path / "value_offsets.npy", np.array([0, 3, 4]))
    with pytest.raises(ArtifactError, match="in the middle of a UTF-8 character"):
        Attributes.load(tmp_path, 2)
