"""Sources that cannot be read or interpreted, and their errors."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.source import load_ratings
from toy.rating_formats import PLAIN


def zip_of(name: str) -> bytes:
    """Return a zip file with one small file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


MALFORMED: dict[str, tuple[str, str]] = {
    "no rating": ("ann,b3,,5", "x.csv:5: column rating: '' is not a rating"),
    "text as rating": ("ann,b3,good,5", "x.csv:5: column rating: 'good' is not a rating"),
    "NaN": ("ann,b3,nan,5", "x.csv:5: column rating: 'nan' is not a rating"),
    "no time": ("ann,b3,4,", "x.csv:5: column time: '' is not a time"),
    "text as time": ("ann,b3,4,noon", "x.csv:5: column time: 'noon' is not a time"),
    "no user": (",b3,4,5", "x.csv:5: column user: '' is not a user id: it is empty"),
    "long id": (f"ann,{'é' * 129},4,5", "is not an item id: it is longer than 256 bytes"),
    "NUL": ("a\0nn,b3,4,5", "'a\\x00nn' is not a user id: it has a NUL character"),
    "few fields": ("ann,b3", "x.csv:5: 2 fields, not 4"),
    "one field": ("ann", "x.csv:5: 1 field, not 4"),
    "many fields": ("ann,b3,4,5,6", "x.csv:5: 5 fields, not 4"),
}


@pytest.mark.parametrize(("line", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_rows_are_named_by_file_line_and_column(
    line: str, message: str, tmp_path: Path
) -> None:
    """The error says where the first malformed rows are and what is wrong with them."""
    (tmp_path / "x.csv").write_text(f"{PLAIN}{line}\n")
    with pytest.raises(RatingsError, match=r"malformed rows \(1\)") as caught:
        load_ratings(str(tmp_path / "x.csv"))
    assert message in str(caught.value)


def test_an_unreadable_column_is_distinguished_from_a_bad_row(tmp_path: Path) -> None:
    """If no value can be read, another column may be meant; long values are truncated."""
    text = "user,item,rating\n" + f"ann,b1,{'very ' * 20}good\nann,b2,bad\n"
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(RatingsError, match=r"\(2\):\n  x.csv:2: .*…' is not a rating") as caught:
        load_ratings(str(tmp_path / "x.csv"))
    assert "No value of rating can be read. Use --columns to name other columns." in str(
        caught.value
    )


def test_a_matrix_of_users_and_items_is_recognised(tmp_path: Path) -> None:
    """The message lists some of its columns and describes the required format."""
    header = ",".join(["user", *(f"film {n}" for n in range(99))])
    (tmp_path / "x.csv").write_text(f"{header}\nann{',4' * 99}\n")
    with pytest.raises(RatingsError, match=r"'film 3'.* and 80 more; .*one row per rating"):
        load_ratings(str(tmp_path / "x.csv"))


def test_lines_before_the_header_count(tmp_path: Path) -> None:
    """The line in the error is that of the file, including comments."""
    (tmp_path / "x.csv").write_text("# a\n# b\nuser,item,rating\nann,b1,4\nann,b2,x\n")
    with pytest.raises(RatingsError, match=r"\n  x.csv:5: column rating: 'x' is not a rating"):
        load_ratings(str(tmp_path / "x.csv"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.xls",
            b"\xd0\xcf\x11\xe0 more",
            "x.xls: this is an Excel workbook, not a table of text; in Excel, save",
        ),
        ("x.avro", b"Obj\x01 more", "x.avro: this is an Avro file, not a table of text; write"),
        ("x", b"PAR1 more", "x: "),
        ("x.feather", b"no Arrow", "x.feather: not an Arrow file"),
        ("x.parquet", b"no Parquet", "x.parquet: not a Parquet file"),
        ("x.duckdb", bytes(8) + b"DUCK", "x.duckdb: this is a DuckDB database"),
        ("x.tar", bytes(257) + b"ustar\x0000", "x.tar: this is a tar archive"),
        ("x.tar.gz", gzip.compress(bytes(257) + b"ustar\x0000"), "x.tar.gz: this is a tar archive"),
        ("x.pkl", b"\x80\x04\x95\x00", "x.pkl: this is a Python pickle, which is never loaded"),
        ("x.csv", b"\n<!DOCTYPE html><p>404</p>", "x.csv: this is a web page, not a table"),
        (
            "x.csv.gz",
            gzip.compress(PLAIN.encode() * 99)[:60],
            "x.csv.gz: the compressed file is truncated",
        ),
        ("x.xlsx", zip_of("xl/workbook.xml"), "x.xlsx: this is an Excel workbook"),
        ("x.ods", zip_of("META-INF/manifest.xml"), "x.ods: this is an OpenDocument file"),
        ("x.zip", zip_of("readme.md"), "x.zip: there is no file of ratings"),
        ("x.jsonl", b'{"user": [1], "item": 2}\n', "x.jsonl: column user holds nested values"),
    ],
    # Without the content, which contains the time of its compression.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_other_kinds_are_reported_in_one_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    """The error says what the file is, or which column cannot be read."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RatingsError) as caught:
        load_ratings(str(tmp_path / name))
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert "\n" not in str(caught.value)


def test_a_line_is_counted_across_quoted_line_breaks_and_files(tmp_path: Path) -> None:
    """Each file counts its own lines, and a field may span several of them."""
    header = "user,item,rating,review\n"
    (tmp_path / "a.csv").write_text(header + "ann,b1,4,fine\n")
    (tmp_path / "b.csv").write_text(header + 'ann,b2,4,"two\nlines"\nann,b3,x,fine\n')
    with pytest.raises(RatingsError, match=r"\n  b.csv:4: column rating: 'x' is not a rating"):
        load_ratings(str(tmp_path / "*.csv"))


def test_malformed_json_lines_are_named(tmp_path: Path) -> None:
    """The error has the line of each JSON text that cannot be parsed."""
    (tmp_path / "x.jsonl").write_text('{"user": 1, "item": 2}\n{"user": 1,\n')
    with pytest.raises(RatingsError, match=r"malformed rows \(1\):\n  x.jsonl:2: "):
        load_ratings(str(tmp_path / "x.jsonl"))
    (tmp_path / "x.jsonl").write_text('{"user": 1, "item": 2}\n\n{"user": 1}\n')
    with pytest.raises(RatingsError, match=r"x.jsonl:3: column item: '' is not an item id"):
        load_ratings(str(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        (
            "x.csv",
            "who,what,how\n1,2,3\n",
            {},
            r"x.csv: no column is recognised as the user or the item",
        ),
        ("x.csv", "user,what\n1,2\n", {}, r"no column .* the item .* 'user', 'what'.*--columns"),
        ("x.csv", "", {}, "x.csv: there are no ratings"),
        ("x.csv", "user,item,rating\n", {}, "x.csv: there are no ratings"),
        ("x.csv", "user\n1\n", {}, "x.csv: line 1 has one column"),
        ("x.csv", "\x02,\x8e\x05\x00\xff\n\x07,\x03" * 9, {}, "x.csv: not a text table"),
        (
            "x.csv",
            PLAIN,
            {"user": "user", "item": "film"},
            "there is no column 'film'; the columns",
        ),
        ("x.csv", PLAIN, {"user": "user", "item": "9"}, "there is no column '9'"),
        ("x.csv", PLAIN, {"user": "user", "item": "1"}, "names a column twice"),
        ("x.parquet", "not Parquet", {}, r"x.parquet: "),
        ("x.csv.gz", "neither gzip nor a table", {}, r"x.csv.gz: line 1 has one column"),
        ("x.csv", "Not Found", {}, r"x.csv: line 1 has one column"),
        ("x.db", "not a database", {}, r"x.db: SELECT \* FROM ratings: "),
    ],
)
def test_files_that_cannot_be_interpreted_are_reported(
    name: str, content: str, options: Mapping[str, str], message: str, tmp_path: Path
) -> None:
    """The error says what is missing, and names the option that helps if there is one."""
    (tmp_path / name).write_text(content)
    with pytest.raises(RatingsError, match=message):
        load_ratings(str(tmp_path / name), options=ReadOptions(options))


def test_sources_that_do_not_exist_are_named(tmp_path: Path) -> None:
    """Folders without ratings, patterns without files, and unknown protocols are errors."""
    with pytest.raises(RatingsError, match="there is no file of ratings"):
        load_ratings(str(tmp_path))
    with pytest.raises(RatingsError, match="there is no file of ratings"):
        load_ratings(str(tmp_path / "*.csv"))
    with pytest.raises(RatingsError, match="gopher"):
        load_ratings("gopher://host/ratings.csv")
    with pytest.raises(RatingsError, match="does not exist"):
        load_ratings("sqlite:////nowhere/ratings.db")
    with pytest.raises(RatingsError, match="--query requires a database"):
        load_ratings("sample", options=ReadOptions(query="SELECT 1"))


def test_a_rating_off_the_given_scale_is_named(tmp_path: Path) -> None:
    """A scale that the user gives is enforced."""
    (tmp_path / "x.csv").write_text("user,item,rating\nann,b1,5\nann,b2,11\n")
    options = ReadOptions(scale=RatingScale(1, 10, 0))
    with pytest.raises(RatingsError, match=r"x.csv:3: 11 is not a rating from 1 to 10"):
        load_ratings(str(tmp_path / "x.csv"), options=options)


def test_the_error_for_a_table_without_header_suggests_columns(tmp_path: Path) -> None:
    """The error names the first column of numbers after the third."""
    (tmp_path / "plays.tsv").write_text("a1\tb1\tBlue Hour\t12\na2\tb1\tBlue Hour\t7\n")
    with pytest.raises(RatingsError, match=r"such as user=1,item=2,rating=4 or …,count=4"):
        load_ratings(str(tmp_path / "plays.tsv"))


@pytest.mark.parametrize("role", ["user", "rating", "time"])
def test_a_column_of_lists_is_named(role: str, tmp_path: Path) -> None:
    """Nested values are an error in the column of any role."""
    row = {"user": "ann", "item": "b1", "rating": 4, "time": 5} | {role: [1, 2]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RatingsError, match=f"column {role} holds nested values; write the {role}"):
        load_ratings(str(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("late", [False, True])
def test_a_stray_byte_in_utf8_is_named(tmp_path: Path, late: bool) -> None:
    """Otherwise one byte would change the ids of all other rows."""
    rows = [f"u{n},café{n % 50},{n % 5 + 1}\n".encode() for n in range(9000 if late else 20)]
    rows.append("u1,Ærø,".encode() + b"\xe95\n")
    path = tmp_path / "own.csv"
    path.write_bytes(b"user,item,rating\n" + b"".join(rows))
    place = rf"own\.csv:{len(rows) + 1}: character 8: the byte 0xE9 is not UTF-8"
    with pytest.raises(RatingsError, match=place):
        load_ratings(str(path))


def test_a_guessed_encoding_is_noted(tmp_path: Path) -> None:
    """Files of Windows programs are read, and the note says how."""
    path = tmp_path / "own.csv"
    path.write_bytes("user,item,rating\nu,café “x”,1\nv,Ærø,2\n".encode("cp1252"))
    found = load_ratings(str(path))
    assert found.dataset.catalogue.items.ids(range(2)) == ["café “x”", "Ærø"]
    assert "own.csv is not in UTF-8, and is read as Windows-1252" in found.interpretation.notes


@pytest.mark.parametrize("value", ["[1, 2]", '{"k": 1}', "true"])
def test_structures_of_json_are_no_ids(tmp_path: Path, value: str) -> None:
    """Their text would otherwise be the id."""
    lines = ['{"user": "a", "item": "b", "rating": 5}', f'{{"user": {value}, "item": "c"}}']
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    with pytest.raises(RatingsError, match=r"own.jsonl:2: column user: .* is not an id"):
        load_ratings(str(tmp_path / "own.jsonl"))


def test_booleans_are_no_ids(tmp_path: Path) -> None:
    """A column of them was chosen by mistake."""
    (tmp_path / "own.jsonl").write_text('{"user": true, "item": "b", "rating": 5}\n')
    with pytest.raises(RatingsError, match="column user holds true and false"):
        load_ratings(str(tmp_path / "own.jsonl"))


def test_lists_of_ratings_are_pointed_out(tmp_path: Path) -> None:
    """A user with all ratings in a list must be written as one object for each rating."""
    text = '{"user": "a", "ratings": [{"item": "x", "stars": 3}]}\n'
    (tmp_path / "own.jsonl").write_text(2 * text)
    with pytest.raises(RatingsError, match="column ratings holds lists: write an object for each"):
        load_ratings(str(tmp_path / "own.jsonl"))


def test_quotes_after_a_backslash_are_read(tmp_path: Path) -> None:
    """So are separators after them, and a backslash at the end of a field."""
    text = '"user";"item";"rating"\n"a";"x \\"y\\"; z";"5"\n"b";"q";"3"\n'
    (tmp_path / "own.csv").write_text(text)
    dataset = load_ratings(str(tmp_path / "own.csv")).dataset
    assert dataset.catalogue.items.ids(range(2)) == ["q", 'x "y"; z']
    (tmp_path / "own.csv").write_text('"user","item","rating"\n"a","C:\\","5"\n"b","q","3"\n')
    dataset = load_ratings(str(tmp_path / "own.csv")).dataset
    assert dataset.catalogue.items.ids(range(2)) == ["C:\\", "q"]
