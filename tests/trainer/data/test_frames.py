"""Data frames as a source of ratings."""

from __future__ import annotations

import polars as pl
import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.frames import from_frame
from marquee_trainer.data.options import ReadOptions
from toy.rating_formats import read_back
from toy.ratings_files import ROWS, frame_of

ITEMS = pl.DataFrame({"item": ["b1", "b2"], "title": ["A", "B"], "genres": [["X", "Y"], []]})


def test_frames_of_polars_and_arrow_are_read() -> None:
    """The rows are those of the frame, with items from another frame."""
    for frame in (frame_of(ROWS), frame_of(ROWS).lazy(), frame_of(ROWS).to_arrow()):
        dataset, interpretation = from_frame(frame, ITEMS)
        assert read_back(dataset) == ROWS
        assert dataset.catalogue.title(0) == "A"
        assert dataset.catalogue.item_genres(0) == ("X", "Y")
        assert interpretation.columns["user"] == "user"


def test_frames_of_pandas_are_read() -> None:
    """Ids in a column with missing values, which pandas turns into floats, stay whole numbers."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user": [1.0, 2.0], "item": [3, 4], "rating": [5, 4]})
    assert read_back(from_frame(frame)[0]) == [("1", "3", 5, 0), ("2", "4", 4, 0)]


def test_a_malformed_row_of_a_frame_is_named() -> None:
    """The error has the name given by the caller, the row and the column."""
    frame = pl.DataFrame({"who": ["a", None], "what": ["x", "y"]})
    options = ReadOptions({"user": "who", "item": "what"})
    with pytest.raises(RatingsError, match="plays: row 2: column who: '' is not a user id"):
        from_frame(frame, options=options, name="plays")


def test_other_types_are_refused() -> None:
    """The error names the type."""
    with pytest.raises(RatingsError, match="frame is required, not list"):
        from_frame([1, 2])
