"""Runs that are interrupted, repeated, or written to different places."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.tasks.processes import run_in_processes
from marquee_services.lists.output import Output, OutputError
from marquee_services.lists.request import ListRequest
from marquee_services.lists.run import Summary, cut_parts, partition_size, write_lists
from toy.lists import list_request, rows_of, run_here
from toy.release import USERS, publish_toy


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseStore, Manifest, Path]:
    """A store with a toy release, and a folder for copies of its files."""
    folder = tmp_path_factory.mktemp("lists")
    store = ReleaseStore(str(folder / "store"))
    return store, publish_toy(store, folder / "made"), folder / "cache"


@pytest.fixture
def request_for_lists(released: tuple[ReleaseStore, Manifest, Path]) -> ListRequest:
    """A request for plain lists of that release."""
    store, manifest, cache = released
    return list_request(store.url, manifest.release_id, cache)


def write(
    request: ListRequest, out: Path | str, size: int = 10, users: Sequence[str] | None = None
) -> Summary:
    """Write lists in this process."""
    count = USERS if users is None else len(users)
    parts = cut_parts(count, users, size)
    return write_lists(request, Output.parse(str(out)), parts, run_here, lambda _: None)


def test_a_run_resumes_where_an_earlier_one_stopped(
    request_for_lists: ListRequest, tmp_path: Path
) -> None:
    """Finished parts are kept, and missing, truncated and damaged ones are computed again.

    The bytes equal those of an uninterrupted run.
    """
    out = tmp_path / "lists"
    first = write(request_for_lists, out)
    assert (first.parts, first.computed, first.found) == (4, USERS, 0)
    paths = sorted(out.iterdir())
    assert [path.name for path in paths] == [f"part-0000{n}.parquet" for n in range(4)]
    contents = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[1].write_bytes(contents[1][: len(contents[1]) // 2])
    damaged = bytearray(contents[2])
    damaged[len(damaged) // 8] ^= 0xFF
    paths[2].write_bytes(damaged)
    modified = paths[3].stat().st_mtime_ns
    second = write(request_for_lists, out)
    assert (second.computed, second.found, second.items) == (30, 10, first.items)
    assert [path.read_bytes() for path in paths] == contents
    assert paths[3].stat().st_mtime_ns == modified
    assert sorted(out.iterdir()) == paths


def test_parts_of_other_lists_are_replaced(
    released: tuple[ReleaseStore, Manifest, Path], tmp_path: Path
) -> None:
    """Other options, another part size and other users make different lists."""
    store, manifest, cache = released
    out, users = tmp_path / "lists", [f"u{n}" for n in range(10)]
    plain = list_request(store.url, manifest.release_id, cache)
    assert write(plain, out, users=users).computed == 10
    assert write(plain, out, users=users).found == 10
    short = list_request(store.url, manifest.release_id, cache, page_size=5)
    assert write(short, out, users=users).computed == 10
    seen = list_request(
        store.url, manifest.release_id, cache, pb.RecommendOptions(include_seen=True)
    )
    assert write(seen, out, users=users).computed == 10
    assert write(seen, out, users=users[::-1]).computed == 10
    rows = rows_of((out / "part-00000.parquet").read_bytes())
    assert list(dict.fromkeys(row["user_id"] for row in rows)) == users[::-1]


def test_foreign_files_that_look_like_parts_are_refused(
    request_for_lists: ListRequest, tmp_path: Path
) -> None:
    """A reader of the folder would read such files as well, so they are refused."""
    out = tmp_path / "lists"
    write(request_for_lists, out, size=10)
    with pytest.raises(OutputError, match=r"contains part-00002\.parquet, which is not a part"):
        write(request_for_lists, out, size=20)


def test_a_single_file_contains_the_parts_in_order(
    request_for_lists: ListRequest, tmp_path: Path
) -> None:
    """The file appears when it is complete; a finished one is kept, and a damaged one replaced."""
    path = tmp_path / "all.parquet"
    write(request_for_lists, tmp_path / "parts")
    parts = [rows_of(part.read_bytes()) for part in sorted((tmp_path / "parts").iterdir())]
    assert write(request_for_lists, path).computed == USERS
    content = path.read_bytes()
    assert rows_of(content) == [row for part in parts for row in part]
    assert pq.ParquetFile(io.BytesIO(content)).num_row_groups == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.parquet", "parts"]
    assert write(request_for_lists, path).found == USERS
    path.write_bytes(content[:-100])
    assert write(request_for_lists, path).computed == USERS
    assert path.read_bytes() == content


def test_the_folder_may_be_a_url_with_a_pattern(
    request_for_lists: ListRequest, tmp_path: Path
) -> None:
    """Object storage is written through fsspec, here with files in memory."""
    out = f"memory://lists-{tmp_path.name}/*.parquet"
    assert write(request_for_lists, out, size=20).computed == USERS
    storage = Output.parse(out).storage
    assert storage.names("") == ["00000.parquet", "00001.parquet"]
    assert len({row["user_id"] for row in rows_of(storage.read("00001.parquet"))}) == 20
    assert write(request_for_lists, out, size=20).found == USERS
    single = f"memory://lists-{tmp_path.name}/all/one.parquet"
    assert write(request_for_lists, single, size=20).computed == USERS
    assert Output.parse(single).file_storage.names("") == ["one.parquet"]


def test_several_processes_write_the_same_as_one(
    request_for_lists: ListRequest, tmp_path: Path
) -> None:
    """Progress counts every user once, and the bytes do not depend on the processes."""
    write(request_for_lists, tmp_path / "one")
    seen: list[int] = []
    summary = write_lists(
        request_for_lists,
        Output.parse(str(tmp_path / "two")),
        cut_parts(USERS, None, 10),
        partial(run_in_processes, processes=2),
        lambda so_far: seen.append(so_far.computed),
    )
    assert (summary.computed, summary.parts) == (USERS, 4)
    assert seen == sorted(seen)
    assert seen[-1] == USERS
    for part in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / part.name).read_bytes() == part.read_bytes()


@pytest.mark.parametrize(
    ("out", "folder", "name", "file"),
    [
        ("lists", "lists", "part-00007.parquet", ""),
        ("lists/", "lists", "part-00007.parquet", ""),
        ("a/all.parquet", "a/.all.parquet.parts", "part-00007.parquet", "all.parquet"),
        ("all.parquet", "./.all.parquet.parts", "part-00007.parquet", "all.parquet"),
        ("*.parquet", ".", "00007.parquet", ""),
        ("s3://b/x/of-*.parquet", "s3://b/x", "of-00007.parquet", ""),
        ("s3://b/x", "s3://b/x", "part-00007.parquet", ""),
    ],
)
def test_an_output_is_a_folder_pattern_or_file(out: str, folder: str, name: str, file: str) -> None:
    """The star stands for the number of a part."""
    output = Output.parse(out)
    assert (output.folder, output.name(7), output.file) == (folder, name, file)


@pytest.mark.parametrize("out", ["a*/x.parquet", "*-*.parquet", "lists/*.csv"])
def test_invalid_patterns_are_refused(out: str) -> None:
    """Only the name of Parquet files may contain a star."""
    with pytest.raises(OutputError, match=r"\*|must end"):
        Output.parse(out)


def test_parts_depend_only_on_the_number_of_users() -> None:
    """A run can be resumed on a machine with another number of cores."""
    assert [partition_size(users) for users in (1, 6_040, 1_000_000, 10**8)] == [
        500,
        500,
        3_907,
        50_000,
    ]
    parts = cut_parts(1_001, None, 500)
    assert [(part.first, part.end) for part in parts] == [(0, 500), (500, 1_000), (1_000, 1_001)]
