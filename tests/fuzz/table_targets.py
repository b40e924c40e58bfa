"""Parsers of the rating and item files that the trainer reads."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import polars as pl

from fuzz.mutate import mutate_bytes, mutate_json
from fuzz.targets import Target
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.grouplens_items import parse_movies_csv, parse_movies_dat, parse_u_item
from marquee_trainer.data.grouplens_ratings import parse_ratings
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import load_ratings

_ROWS = [(f"u{n % 7}", f"i{n % 5}", 1.0 + n % 5, 1_700_000_000 + n) for n in range(35)]
_CSV = "userId,movieId,rating,timestamp\n" + "".join(
    f"{u[1:]},{i[1:]},{r},{t}\n" for u, i, r, t in _ROWS
)
_TSV = "".join(f"{u[1:]}\t{i[1:]}\t{r:g}\t{t}\n" for u, i, r, t in _ROWS)
_DAT = "".join(f"{u[1:]}::{i[1:]}::{r:g}::{t}\n" for u, i, r, t in _ROWS)
_OTHER = "user;item;stars;time\n" + "".join(f"{u};{i};{r};{t}\n" for u, i, r, t in _ROWS)
_JSON = (
    "["
    + ",".join(f'{{"user":"{u}","item":"{i}","rating":{r},"time":{t}}}' for u, i, r, t in _ROWS[:9])
    + "]"
)
_MOVIES = 'movieId,title,genres\n1,"Toy Story, The (1995)",Animation|Comedy\n2,Heat (1995),Crime\n'
_MOVIES_DAT = "1::Toy Story (1995)::Animation|Comedy\n2::Heat (1995)::Crime\n"
_U_ITEM = "1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"


def table_targets(folder: Path) -> list[Target]:
    """Returns the targets."""
    frame = pl.DataFrame(_ROWS, schema=["user", "item", "rating", "time"], orient="row")
    parquet, arrow = io.BytesIO(), io.BytesIO()
    frame.write_parquet(parquet)
    frame.write_ipc(arrow)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr("ml/ratings.csv", _CSV)
        files.writestr("ml/movies.csv", _MOVIES)
    items = folder / "items.csv"
    items.write_text(_MOVIES)
    count = 0

    def read(data: bytes, suffix: str) -> None:
        nonlocal count
        # A new name for each file, because the contents of a path may be cached.
        count += 1
        path = folder / f"ratings-{count}{suffix}"
        path.write_bytes(data)
        try:
            load_ratings(str(path), options=ReadOptions(allow_untitled=True))
        finally:
            path.unlink()

    def read_items(data: bytes) -> None:
        path = folder / "given-items.csv"
        path.write_bytes(data)
        ratings = folder / "all.csv"
        ratings.write_text(_CSV)
        load_ratings(str(ratings), options=ReadOptions(items=str(path), allow_untitled=True))

    def parse_movies(data: bytes) -> None:
        kind = data[:1]
        if kind == b"1":
            parse_movies_dat(data[1:], "movies.dat")
        elif kind == b"2":
            parse_u_item(data[1:], "u.item")
        else:
            parse_movies_csv(data[1:], "movies.csv")

    refused = (RatingsError,)
    movies = [b"0" + _MOVIES.encode(), b"1" + _MOVIES_DAT.encode(), b"2" + _U_ITEM.encode()]
    texts = [_CSV.encode(), _TSV.encode(), _DAT.encode()]
    other = [_OTHER.encode(), _OTHER.encode("utf-16"), _CSV.encode()]
    return [
        Target("GroupLens ratings", 30, texts, lambda d: parse_ratings(d, "ratings.csv"), refused),
        Target("GroupLens films", 20, movies, parse_movies, refused),
        Target("delimited ratings", 8, other, lambda d: read(d, ".csv"), refused),
        Target(
            "JSON ratings", 4, [_JSON.encode()], lambda d: read(d, ".json"), refused, mutate_json
        ),
        Target("Parquet ratings", 4, [parquet.getvalue()], lambda d: read(d, ".parquet"), refused),
        Target("Arrow ratings", 3, [arrow.getvalue()], lambda d: read(d, ".arrow"), refused),
        Target(
            "compressed ratings",
            3,
            [gzip.compress(_CSV.encode())],
            lambda d: read(d, ".csv.gz"),
            refused,
        ),
        Target("archives", 5, [archive.getvalue()], lambda d: read(d, ".zip"), refused),
        Target("item files", 4, [_MOVIES.encode()], read_items, refused, mutate_bytes),
    ]
