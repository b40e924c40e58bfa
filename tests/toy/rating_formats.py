"""Formats of ratings that users have, and how each one should be interpreted."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import zstandard

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.scale import Feedback, RatingScale
from toy.ratings_files import (
    ROWS,
    Row,
    arrow,
    csv_text,
    folder_of,
    frame_of,
    memory_url,
    named,
    parquet,
    sqlite,
    zipped,
)

STARS = RatingScale(0.5, 5.0, 0.5)
WHOLE = RatingScale(1.0, 5.0, 1.0)
COLUMNS = {"user": "user", "item": "item", "rating": "rating", "time": "time"}
DAYS: list[Row] = [
    ("ann", "b1", 4.0, 1_577_923_200),
    ("ann", "b2", 3.5, 1_578_009_600),
    ("bob", "b1", 1.0, 1_577_923_200),
]


@dataclass(frozen=True)
class Case:
    """A rating format and the expected result of reading it.

    Attributes:
        write: Writes files to a folder, and returns the source to load.
        rows: The expected rows, in the order of the source.
        columns: The expected roles of the columns.
        scale: The expected scale.
        times: The expected format of times; empty for none.
        feedback: The expected kind of feedback.
        options: How to read the source.
    """

    write: Callable[[Path], str]
    rows: list[Row]
    columns: Mapping[str, str] = field(default_factory=lambda: COLUMNS)
    scale: RatingScale = STARS
    times: str = "seconds"
    feedback: Feedback = Feedback.EXPLICIT
    options: ReadOptions = field(default_factory=ReadOptions)


PLAIN = csv_text("user,item,rating,time", ROWS)
HALVES = [csv_text("user,item,rating,time", ROWS[:2]), csv_text("user,item,rating,time", ROWS[2:])]
QUOTED = '"User-ID","ISBN","Book-Rating"\n"ann","b1","7"\n"bob","b,1","10"\n"bob","b""2","1"\n'
TEN = RatingScale(1.0, 10.0, 1.0)
BOOKS = "book_id,original_publication_year,title\nb1,1990.0,Blue Hour\n"
ATOMIC = csv_text("user_id:token,item_id:token,rating:float,timestamp:float", ROWS).replace(
    ",", "\t"
)
ATOMIC_ITEMS = "item_id:token\tmovie_title:token_seq\nb1\tBlue Hour\nb2\tLow Tide\n"
UUID = "00ff1122-3344-5566-7788-99aabbccddee"
UUID_BYTES = pl.lit(bytes.fromhex(UUID.replace("-", "")))
WHO = COLUMNS | {"user": "who"}

CASES: dict[str, Case] = {
    "other header": Case(
        named("x.csv", csv_text("reviewerID,asin,overall,unixReviewTime", ROWS)),
        ROWS,
        {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
    ),
    "other order": Case(
        named("x.csv", "ts;Stars;Item ID;User ID\n5;4;b1;ann\n6;2;b1;bob\n"),
        [("ann", "b1", 4, 5), ("bob", "b1", 2, 6)],
        {"user": "User ID", "item": "Item ID", "rating": "Stars", "time": "ts"},
        WHOLE,
    ),
    "quoted header, ratings of 1 to 10, no times": Case(
        named("x.csv", QUOTED),
        [("ann", "b1", 7, 0), ("bob", "b,1", 10, 0), ("bob", 'b"2', 1, 0)],
        {"user": "User-ID", "item": "ISBN", "rating": "Book-Rating"},
        TEN,
        "",
    ),
    "three columns": Case(
        named("three.csv", "userId,movieId,rating\n1,2,3\n2,2,4\n"),
        [("1", "2", 3, 0), ("2", "2", 4, 0)],
        {"user": "userId", "item": "movieId", "rating": "rating"},
        WHOLE,
        "",
    ),
    "index column": Case(
        named("five.csv", ",userId,movieId,rating,timestamp\n0,1,2,3.5,1112486027\n"),
        [("1", "2", 3.5, 1_112_486_027)],
        {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"},
    ),
    "ISO 8601": Case(
        named(
            "x.csv",
            csv_text(
                "user,item,rating,date",
                ROWS,
                form=lambda t: np.datetime64(t, "s").item().isoformat() + "Z",
            ),
        ),
        ROWS,
        COLUMNS | {"time": "date"},
        times="ISO 8601",
    ),
    "dates": Case(
        named(
            "x.csv",
            csv_text(
                "user,item,rating,date", DAYS, form=lambda t: np.datetime64(t, "s").item().date()
            ),
        ),
        DAYS,
        COLUMNS | {"time": "date"},
        times="ISO 8601",
    ),
    "dates, month first": Case(
        named("x.csv", "user,item,rating,date\nann,b1,4,1/2/2020\nann,b2,3.5,1/13/2020\n"),
        [("ann", "b1", 4, 1_577_923_200), ("ann", "b2", 3.5, 1_578_873_600)],
        COLUMNS | {"time": "date"},
        times="dates, month first",
    ),
    "milliseconds": Case(
        named("x.csv", csv_text("user,item,rating,time", ROWS, form=lambda t: t * 1000 + 7)),
        ROWS,
        times="milliseconds",
    ),
    "fractions of seconds": Case(
        named("x.csv", csv_text("user,item,rating,time", ROWS, form=lambda t: f"{t}.75")), ROWS
    ),
    "plays": Case(
        named("plays.tsv", "user\tartist\tplays\nann\tb1\t120\nbob\tb1\t1\n"),
        [("ann", "b1", 120, 0), ("bob", "b1", 1, 0)],
        {"user": "user", "item": "artist", "count": "plays"},
        RatingScale(0, 120, 1),
        "",
        Feedback.IMPLICIT,
    ),
    "purchases without count": Case(
        named("x.csv", "customer,sku,date\nann,b1,2020-01-02\nbob,b2,2020-01-02\n"),
        [("ann", "b1", 1, 1_577_923_200), ("bob", "b2", 1, 1_577_923_200)],
        {"user": "customer", "item": "sku", "time": "date"},
        RatingScale(0, 1, 1),
        "ISO 8601",
        Feedback.IMPLICIT,
    ),
    "repeated clicks are counted": Case(
        named("x.csv", "user,item\nann,b1\nbob,b2\nann,b1\n"),
        [("bob", "b2", 1, 0), ("ann", "b1", 2, 0)],
        {"user": "user", "item": "item"},
        RatingScale(0, 2, 1),
        "",
        Feedback.IMPLICIT,
    ),
    "all ratings equal": Case(
        named("x.csv", "user,item,rating\nann,b1,1\nbob,b2,1\n"),
        [("ann", "b1", 1, 0), ("bob", "b2", 1, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        RatingScale(0, 1, 1),
        "",
        Feedback.IMPLICIT,
    ),
    "thumbs": Case(
        named("x.csv", "user,item,thumb\nann,b1,up\nbob,b1,down\n"),
        [("ann", "b1", 1, 0), ("bob", "b1", 0, 0)],
        {"user": "user", "item": "item", "rating": "thumb"},
        RatingScale(0, 1, 1),
        "",
    ),
    "continuous scale around 0": Case(
        named("jester.csv", "user,joke,rating\n1,5,-9.8125\n1,7,8.25\n2,5,0.125\n"),
        [("1", "5", -9.8125, 0), ("1", "7", 8.25, 0), ("2", "5", 0.125, 0)],
        {"user": "user", "item": "joke", "rating": "rating"},
        RatingScale(-10, 10, 0),
        "",
    ),
    "percent": Case(
        named("x.csv", "user,item,score\nann,b1,85\nann,b2,100\nbob,b1,0\n"),
        [("ann", "b1", 85, 0), ("ann", "b2", 100, 0), ("bob", "b1", 0, 0)],
        {"user": "user", "item": "item", "rating": "score"},
        RatingScale(0, 100, 1),
        "",
    ),
    "given scale": Case(
        named("x.csv", "user,item,rating\nann,b1,5\nann,b2,2\n"),
        [("ann", "b1", 5, 0), ("ann", "b2", 2, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        RatingScale(0, 7, 1),
        "",
        options=ReadOptions(scale=RatingScale(0, 7, 0)),
    ),
    "decimal commas": Case(
        named("x.csv", "user;item;rating\nann;b1;3,5\nbob;b1;4\n"),
        [("ann", "b1", 3.5, 0), ("bob", "b1", 4, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        STARS,
        "",
    ),
    "repeats, the latest by time": Case(
        named("x.csv", PLAIN + "ann,b1,2,5\nbob,b1,5,1577934401\n"),
        [*ROWS[:2], ("bob", "b1", 5, 1_577_934_401)],
    ),
    "repeats, their mean": Case(
        named("x.csv", PLAIN + "ann,b1,2,5\n"),
        [("ann", "b1", 3, 1_577_934_245), *ROWS[1:]],
        options=ReadOptions(on_repeat="mean"),
    ),
    "repeats, the highest": Case(
        named("x.csv", PLAIN + "ann,b1,5,5\n"),
        [*ROWS[1:], ("ann", "b1", 5, 5)],
        options=ReadOptions(on_repeat="max"),
    ),
    "any text as ids": Case(
        named("x.csv", "user,item,rating\nZoë Ünal,映画 1,4\n007,9999999999999,3\n7,x y,2\n"),
        [("Zoë Ünal", "映画 1", 4, 0), ("007", "9999999999999", 3, 0), ("7", "x y", 2, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        WHOLE,
        "",
    ),
    "Latin-1": Case(
        named("x.csv", "user,item,rating\nZoë,Café,4\nann,Café,3\n".encode("latin-1")),
        [("Zoë", "Café", 4, 0), ("ann", "Café", 3, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        WHOLE,
        "",
    ),
    "UTF-16": Case(named("x.csv", PLAIN.encode("utf-16")), ROWS),
    "byte order mark and CRLF": Case(
        named("x.csv", b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode()), ROWS
    ),
    "blank lines and a missing last line end": Case(
        named("x.csv", PLAIN.replace("\nbob", "\n\nbob").rstrip()), ROWS
    ),
    "a space after each comma": Case(named("x.csv", PLAIN.replace(",", ", ")), ROWS),
    "tabs": Case(named("x.tsv", PLAIN.replace(",", "\t")), ROWS),
    "semicolons": Case(named("x.csv", PLAIN.replace(",", ";")), ROWS),
    "double colons": Case(named("x.dat", PLAIN.replace(",", "::")), ROWS),
    "no header": Case(
        named("x.csv", PLAIN.partition("\n")[2]),
        ROWS,
        {"user": "1", "item": "2", "rating": "3", "time": "4"},
    ),
    "columns by name": Case(
        named("x.csv", csv_text("a,b,c,d", ROWS)),
        ROWS,
        {"user": "a", "item": "b", "rating": "c", "time": "d"},
        options=ReadOptions({"user": "a", "item": "b", "rating": "c", "time": "d"}),
    ),
    "columns by place": Case(
        named("x.csv", csv_text("who,what,how much,moment", ROWS)),
        ROWS,
        {"user": "who", "item": "what", "rating": "how much", "time": "moment"},
        options=ReadOptions({"user": "1", "item": "2", "rating": "3", "time": "4"}),
    ),
    "quotes inside fields": Case(
        named("x.csv", 'user,item,rating\nann,5" pipe,4\nbob,5" pipe,2\n'),
        [("ann", '5" pipe', 4, 0), ("bob", '5" pipe', 2, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        WHOLE,
        "",
    ),
    "gzip": Case(named("x.csv.gz", gzip.compress(PLAIN.encode())), ROWS),
    "Zstandard": Case(named("x.csv.zst", zstandard.compress(PLAIN.encode())), ROWS),
    "bzip2": Case(named("x.csv.bz2", bz2.compress(PLAIN.encode())), ROWS),
    "JSON lines": Case(
        named("x.jsonl", "".join(json.dumps(row) + "\n" for row in frame_of(ROWS).to_dicts())),
        ROWS,
    ),
    "JSON lines of mixed types": Case(
        named(
            "x.jsonl",
            '{"user": 7, "item": "b1", "rating": 4}\n{"user": "ann", "item": 1, "rating": "3"}\n',
        ),
        [("7", "b1", 4, 0), ("ann", "1", 3, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        WHOLE,
        "",
    ),
    "JSON array": Case(named("x.json", json.dumps(frame_of(ROWS).to_dicts(), indent=1)), ROWS),
    "compressed JSON lines": Case(
        named("x.ndjson.gz", gzip.compress(b'{"user": 7, "item": 1, "rating": 4.5}\n')),
        [("7", "1", 4.5, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        STARS,
        "",
    ),
    "Parquet": Case(parquet(frame_of(ROWS)), ROWS),
    "Parquet with datetimes and float ids": Case(
        parquet(
            pl.DataFrame(
                {
                    "user": [1.0, 2.0],
                    "item": [5_000_000_000, 7],
                    "rating": [4, 2],
                    "time": pl.Series([1_577_923_200_000, 0]).cast(pl.Datetime("ms")),
                }
            )
        ),
        [("1", "5000000000", 4, 1_577_923_200), ("2", "7", 2, 0)],
        scale=WHOLE,
        times="dates with time",
    ),
    "JSON lines with nested objects and nulls": Case(
        named(
            "x.jsonl",
            '{"user": {"id": "ann", "age": 7}, "item": "b1", "rating": 4, "tags": ["x", null]}\n'
            '{"user": {"id": "bob", "age": null}, "item": "b2", "rating": 3, "tags": null}\n',
        ),
        [("ann", "b1", 4, 0), ("bob", "b2", 3, 0)],
        {"user": "user.id", "item": "item", "rating": "rating"},
        WHOLE,
        "",
    ),
    "JSON object that holds the rows": Case(
        named("x.json", json.dumps({"ratings": frame_of(ROWS).to_dicts()}, indent=1)), ROWS
    ),
    "Arrow": Case(arrow, ROWS),
    "UTF-16 without a byte order mark": Case(named("x.tsv", PLAIN.encode("utf-16-le")), ROWS),
    "Excel's line with the separator": Case(
        named("x.csv", "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n")), ROWS
    ),
    "comments before the header": Case(named("x.csv", "# exported, at night\n#\n" + PLAIN), ROWS),
    "spaces around quotes": Case(
        named("x.csv", '"user" , "item" , "rating"\n" ann x" , "b1" , 4\n" bob" , "b""2" , 3\n'),
        [("ann x", "b1", 4, 0), ("bob", 'b"2', 3, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        WHOLE,
        "",
    ),
    "commas that separate thousands": Case(
        named("x.csv", 'user,item,plays\nann,b1,"1,200"\nbob,b2,7\nbob,b1,"1,000,000"\n'),
        [("ann", "b1", 1200, 0), ("bob", "b2", 7, 0), ("bob", "b1", 1_000_000, 0)],
        {"user": "user", "item": "item", "count": "plays"},
        RatingScale(0, 1_000_000, 1),
        "",
        Feedback.IMPLICIT,
    ),
    "characters that are not printable in ids": Case(
        named("x.csv", "user,item,rating\na\u00a0n\u200dn,b\t1,4\nbob,b\x01,3\n"),
        [("a\u00a0n\u200dn", "b\t1", 4, 0), ("bob", "b\x01", 3, 0)],
        {"user": "user", "item": "item", "rating": "rating"},
        WHOLE,
        "",
    ),
    "mixed forms of ISO 8601, not in order": Case(
        named(
            "x.csv",
            "user,item,rating,date\nann,b2,3.5,2020-01-03T00:00:00+02:00\n"
            "ann,b1,4,2020-01-02\nbob,b1,1,2020-01-02T10:30:00.250Z\n",
        ),
        [
            ("ann", "b2", 3.5, 1_578_002_400),
            ("ann", "b1", 4, 1_577_923_200),
            ("bob", "b1", 1, 1_577_961_000),
        ],
        COLUMNS | {"time": "date"},
        times="ISO 8601",
    ),
    "glob": Case(
        folder_of({"a1.csv": HALVES[0], "a2.csv": HALVES[1], "b.csv": "no,ratings\n"}, "a*.csv"),
        ROWS,
    ),
    "folder": Case(folder_of({"part-0.csv": HALVES[0], "part-1.csv": HALVES[1]}), ROWS),
    "GroupLens' folder with another header": Case(
        folder_of({"ratings.csv": PLAIN, "movies.csv": "movieId,title,genres\nb1,A,\nb2,B,\n"}),
        ROWS,
    ),
    "folder of three columns": Case(
        folder_of({"ratings.csv": "user_id,book_id,rating\nann,b1,4\n", "books.csv": BOOKS}),
        [("ann", "b1", 4, 0)],
        {"user": "user_id", "item": "book_id", "rating": "rating"},
        WHOLE,
        "",
    ),
    "folder of atomic files": Case(
        folder_of({"ml.inter": ATOMIC, "ml.item": ATOMIC_ITEMS, "ml.user": "user_id:token\n1\n"}),
        ROWS,
        {
            "user": "user_id:token",
            "item": "item_id:token",
            "rating": "rating:float",
            "time": "timestamp:float",
        },
    ),
    "UUIDs as bytes": Case(
        parquet(frame_of(ROWS[:2]).with_columns(user=UUID_BYTES)),
        [(UUID, *row[1:]) for row in ROWS[:2]],
    ),
    "text as bytes": Case(
        parquet(frame_of(ROWS).select(pl.all().cast(pl.String).cast(pl.Binary))), ROWS
    ),
    "GroupLens' folder with another scale": Case(
        folder_of({"ratings.csv": "userId,movieId,rating,timestamp\n1,1,8,5\n2,1,3,6\n"}),
        [("1", "1", 8, 5), ("2", "1", 3, 6)],
        {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"},
        TEN,
    ),
    "SQLite URL": Case(sqlite("sqlite:///{}"), ROWS, WHO, options=ReadOptions(WHO)),
    "SQLite file": Case(sqlite("{}"), ROWS, WHO, options=ReadOptions(WHO)),
    "SQL query": Case(
        sqlite("sqlite:///{}", "events"),
        ROWS[:2],
        {"user": "user", "item": "item", "rating": "rating"} | {"time": "time"},
        options=ReadOptions(
            query="SELECT who AS user, item, rating, time FROM events WHERE who = 'ann'"
        ),
    ),
    "URL of fsspec": Case(memory_url, ROWS),
    "spaces that align columns": Case(
        named("x.txt", "user  item  rating        time\nann     b1       4  1577934245 \n"),
        ROWS[:1],
        scale=WHOLE,
    ),
    "single spaces, no header": Case(
        named("x.txt", "1 2 3.5\n1 4 2\n2 2 0.5\n"),
        [("1", "2", 3.5, 0), ("1", "4", 2, 0), ("2", "2", 0.5, 0)],
        {"user": "1", "item": "2", "rating": "3"},
        STARS,
        "",
    ),
    "a rare separator": Case(named("x.txt", PLAIN.replace(",", "^")), ROWS),
    "the separator of Hive": Case(
        named("x.txt", PLAIN.partition("\n")[2].replace(",", "\x01")),
        ROWS,
        {"user": "1", "item": "2", "rating": "3", "time": "4"},
    ),
    "only carriage returns": Case(named("x.csv", PLAIN.replace("\n", "\r")), ROWS),
    "gzip without the ending": Case(named("x.csv", gzip.compress(PLAIN.encode())), ROWS),
    "the ending of gzip without gzip": Case(named("x.csv.gz", PLAIN), ROWS),
    "Parquet without the ending": Case(parquet(frame_of(ROWS), "ratings"), ROWS),
    "Parquet with categories and thumbs": Case(
        parquet(
            pl.DataFrame(
                {"user": ["ann", "bob"], "item": ["b1", "b1"], "liked": [True, False]},
                schema_overrides={"user": pl.Categorical, "item": pl.Categorical},
            )
        ),
        [("ann", "b1", 1, 0), ("bob", "b1", 0, 0)],
        {"user": "user", "item": "item", "rating": "liked"},
        RatingScale(0, 1, 1),
        "",
    ),
    "JSON lines with the ending of text": Case(
        named("x.txt", "".join(json.dumps(row) + "\n" for row in frame_of(ROWS).to_dicts())),
        ROWS,
    ),
    "zip file with a folder": Case(
        zipped({"export/ratings.csv": PLAIN, "export/readme.md": "", "__MACOSX/._x.csv": "\0"}),
        ROWS,
    ),
    "folders of partitions": Case(
        folder_of(
            {
                "year=2019/part-0.csv": HALVES[0],
                "year=2020/part-0.csv": HALVES[1],
                "_temporary/part-9.csv": "no,ratings\n",
            }
        ),
        ROWS,
    ),
    "a.m. and p.m.": Case(
        named(
            "x.csv",
            csv_text(
                "user,item,rating,date",
                ROWS,
                form=lambda t: f"{np.datetime64(t, 's').item():%m/%d/%Y %I:%M:%S %p}",
            ).replace("AM", "am"),
        ),
        ROWS,
        COLUMNS | {"time": "date"},
        times="dates, month first",
    ),
    "dates of e-mail": Case(
        named(
            "x.tsv",
            "user\titem\trating\tdate\nann\tb1\t4\tThu, 02 Jan 2020 05:04:05 +0200\n"
            "ann\tb2\t3.5\tThu, 02 Jan 2020 03:05:00 +0000\n",
        ),
        [("ann", "b1", 4, 1_577_934_245), ("ann", "b2", 3.5, 1_577_934_300)],
        COLUMNS | {"time": "date"},
        times="dates of e-mail",
    ),
    "an empty last column": Case(named("x.csv", PLAIN.replace("\n", ",\n")), ROWS),
}


def read_back(dataset: RatingsDataset) -> list[Row]:
    """Return the rows of a data set in the order of its source."""
    order = dataset.file_order
    return list(
        zip(
            dataset.user_ids.ids(dataset.users[order]),
            dataset.catalogue.items.ids(dataset.items[order]),
            dataset.ratings[order].tolist(),
            dataset.timestamps[order].tolist(),
            strict=True,
        )
    )
