"""Any ids, ratings and times that are written to a file are read back."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marquee_trainer.data.source import load_ratings
from toy.rating_formats import read_back
from toy.ratings_files import frame_of

ids = st.one_of(
    st.integers(0, 2**63).map(str),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=64
    ),
)
# Numbers such as 20240131 are read as dates.
seconds = st.integers(-(10**9), 10**10).filter(lambda time: not 19_000_101 <= time <= 21_001_231)
ratings_and_times = st.tuples(st.floats(-1e6, 1e6, width=32), seconds)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.tuples(ids, ids), ratings_and_times, min_size=1, max_size=30),
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
)
def test_any_ids_and_ratings_written_as_csv_are_read_back(
    tmp_path: Path, cells: dict[tuple[str, str], tuple[float, int]], separator: str, quoted: bool
) -> None:
    """The data set has the rows of the file, whatever its ids, ratings and times are."""
    text = io.StringIO(newline="")
    writer = csv.writer(
        text, delimiter=separator, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    )
    rows = [(user, item, rating, time) for (user, item), (rating, time) in cells.items()]
    writer.writerow(["user", "item", "rating", "time"])
    writer.writerows(rows)
    (tmp_path / "x.csv").write_bytes(text.getvalue().encode())
    assert read_back(load_ratings(str(tmp_path / "x.csv")).dataset) == [
        (user, item, np.float32(rating).item(), time) for user, item, rating, time in rows
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.tuples(ids, ids), ratings_and_times, min_size=1, max_size=20),
    st.sampled_from(["parquet", "jsonl"]),
)
def test_any_ids_and_ratings_in_other_formats_are_read_back(
    tmp_path: Path, cells: dict[tuple[str, str], tuple[float, int]], ending: str
) -> None:
    """Parquet and JSON lines contain the same rows as CSV."""
    rows = [(user, item, rating, time) for (user, item), (rating, time) in cells.items()]
    frame = frame_of(rows)
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    expected = [(u, i, np.float32(rating).item(), time) for u, i, rating, time in rows]
    assert read_back(load_ratings(str(path)).dataset) == expected
