"""`marquee batch --out`: recommendations for many users as a file."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

import marquee
from marquee.cli import _batch, main
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

Run: TypeAlias = Callable[..., Result]

GENRES = ["Action", "Sci-Fi"]


def answer(request: pb.BatchRecommendRequest) -> Iterator[pb.BatchRecommendResponse]:
    """Return two items for every user, the last user first, and an error for the user `bad`."""
    for index, subject in reversed(list(enumerate(request.subjects))):
        if subject.user_id == "bad":
            error = pb.BatchRecommendResponse.SubjectError(code=9, message="cannot", reason="NO")
            found = pb.BatchRecommendResponse.SubjectAnswer(subject_index=index, error=error)
        else:
            items = [
                pb.RecommendedItem(
                    item_id=f"{subject.user_id}-{rank}",
                    rank=rank,
                    score=0.5 * rank,
                    predicted_stars=4.5,
                    metadata=types_pb2.Item(item_id="i", title='Ä "title", twice', year=1977),
                )
                for rank in (1, 2)
            ]
            items[0].metadata.genres.extend(GENRES)
            items[1].metadata.ClearField("year")
            page = pb.BatchRecommendResponse.Recommendations(items=items)
            found = pb.BatchRecommendResponse.SubjectAnswer(
                subject_index=index, recommendations=page
            )
        yield pb.BatchRecommendResponse(answers=[found])


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway that answers batches."""
    with FakeGateway() as fake:
        fake.on("BatchRecommend", answer)
        yield fake


@pytest.fixture
def run(gateway: FakeGateway) -> Run:
    """Run `marquee batch` against the fake gateway."""

    def invoke(*arguments: str, **options: Any) -> Result:
        environment = {"MARQUEE_ADDRESS": gateway.address}
        return CliRunner().invoke(
            main, ["--timeout", "60", "batch", *arguments], env=environment, **options
        )

    return invoke


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, with the text and the empty cells of CSV converted."""
    if path.suffix == ".parquet":
        parquet = importlib.import_module("pyarrow.parquet")
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return [
            row
            | {
                "rank": int(row["rank"]),
                "year": int(row["year"]) if row["year"] else None,
                "genres": row["genres"].split("|") if row["genres"] else [],
                "score": float(row["score"]),
                "predicted_stars": float(row["predicted_stars"]),
            }
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_each_format_has_a_row_for_each_item(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Rows follow the order of the users, whatever the order of the answers and of failed calls."""
    monkeypatch.setattr(_batch, "_FILE_SUBJECTS", 2)
    path = tmp_path / f"picks{suffix}"
    result = run("a", "b", "--file", "-", "--out", str(path), input="c\nd\ne\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert f"wrote {path}: 10 recommendations for 5 users" in result.stderr
    rows = read(path)
    assert [(row["user_id"], row["rank"]) for row in rows] == [
        (user, rank) for user in "abcde" for rank in (1, 2)
    ]
    assert rows[0] == {
        "user_id": "a",
        "rank": 1,
        "item_id": "a-1",
        "title": 'Ä "title", twice',
        "year": 1977,
        "genres": GENRES,
        "score": 0.5,
        "predicted_stars": 4.5,
    }
    assert (rows[1]["year"], rows[1]["genres"]) == (None, [])
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_end_of_a_line_is_removed_from_an_id(run: Run, gateway: FakeGateway) -> None:
    """Ids may begin and end with spaces."""
    result = run("--file", "-", "--json", input=" a\nb \r\n\nc")
    assert result.exit_code == 0, result.output
    (call,) = gateway.calls
    assert [subject.user_id for subject in call.request.subjects] == [" a", "b ", "c"]


def test_a_large_batch_is_split_into_several_calls(
    run: Run, gateway: FakeGateway, tmp_path: Path
) -> None:
    """A file of more than 10,000 users, the limit of one call, is filled by several calls."""
    users = [str(number) for number in range(2_500)]
    result = run("--file", "-", "--out", str(tmp_path / "all.csv"), input="\n".join(users))
    assert result.exit_code == 0, result.output
    assert [len(call.request.subjects) for call in gateway.calls] == [1000, 1000, 500]
    assert [row["user_id"] for row in read(tmp_path / "all.csv")[::2]] == users


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_failed_users_are_reported_and_omitted(run: Run, tmp_path: Path, suffix: str) -> None:
    """The file has the other users, and the exit code reports a partial failure."""
    path = tmp_path / f"picks{suffix}"
    result = run("bad", "b", "--out", str(path))
    assert result.exit_code == 10
    assert "user bad: NO: cannot\n" in result.stderr
    assert [row["user_id"] for row in read(path)] == ["b", "b"]
    only_bad = run("bad", "--out", str(path))
    assert only_bad.exit_code == 10
    assert read(path) == []


def test_a_failed_call_leaves_only_the_old_file(
    run: Run, gateway: FakeGateway, tmp_path: Path
) -> None:
    """A failed call neither replaces an existing file nor leaves a temporary one."""
    path = tmp_path / "picks.csv"
    path.write_text("old")
    gateway.on("BatchRecommend", marquee.NotFound("no", reason="RELEASE_NOT_FOUND"))
    assert run("a", "--out", str(path)).exit_code == 4
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--out", "picks.xlsx"], "must be one of .parquet, .csv, .jsonl"),
        (["a", "--out", "nowhere/picks.csv"], "the folder nowhere does not exist"),
        (["a", "--out", "picks.csv", "--json"], "cannot be combined"),
        (["--out", "picks.csv"], "give user ids"),
    ],
)
def test_usage_errors_are_reported_before_any_call(
    run: Run, gateway: FakeGateway, arguments: list[str], message: str
) -> None:
    """Invalid options exit with the usage error code, and no call is made."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not gateway.calls


def test_parquet_without_pyarrow_names_the_extra_to_install(
    run: Run, gateway: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra to install and the formats that need none."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("a", "--out", str(tmp_path / "picks.parquet"))
    assert result.exit_code == 2
    assert "pip install 'marquee-recommender[batch]'" in result.stderr
    assert run("a", "--out", str(tmp_path / "picks.csv")).exit_code == 0
    assert len(gateway.calls) == 1
