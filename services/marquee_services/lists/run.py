"""Computes the lists of all users in parts, skipping parts that already exist."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marquee_core.release.storage import PARTIAL
from marquee_core.tasks.task import RunTasks
from marquee_services.lists.output import ListFiles, OutputError
from marquee_services.lists.request import ListRequest
from marquee_services.lists.table import METADATA, errors_as_json, read_metadata
from marquee_services.lists.user_list import UserError
from marquee_services.lists.worker import ListWorker, Part

# The default number of parts, and the bounds on the number of users per part. The size of a part
# depends only on the number of users, so that a run can be resumed on another machine.
_PARTS, _MIN_USERS, _MAX_USERS = 256, 500, 50_000


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        users: The total number of users.
        computed: The number of users whose lists this run has computed.
        reused: The number of users whose lists an earlier run has written.
        items: The number of rows in finished parts.
        parts: The number of finished parts.
        total_parts: The total number of parts.
        errors: The errors of users without a list.
    """

    users: int
    computed: int = 0
    reused: int = 0
    items: int = 0
    parts: int = 0
    total_parts: int = 0
    errors: list[UserError] = field(default_factory=list)


def default_part_size(users: int) -> int:
    """Returns the default number of users of a part."""
    return min(_MAX_USERS, max(_MIN_USERS, math.ceil(users / _PARTS)))


def cut_parts(users: int, user_ids: Sequence[str] | None, size: int) -> list[Part]:
    """Divides users into parts.

    Args:
        users: The number of users.
        user_ids: The ids of the users; None for all users of the release.
        size: The number of users of a part.
    """
    return [
        Part(
            number,
            first,
            min(first + size, users),
            None if user_ids is None else tuple(user_ids[first : first + size]),
        )
        for number, first in enumerate(range(0, users, size))
    ]


def write_lists(
    request: ListRequest,
    output: ListFiles,
    parts: Sequence[Part],
    run: RunTasks,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Computes and writes all parts, except those that an earlier run has finished.

    Args:
        request: The description of the lists.
        output: The files to write.
        parts: The parts.
        run: Runs the tasks.
        on_progress: Called whenever users have been computed, or a part has been finished.

    Returns:
        The final progress.

    Raises:
        OutputError: The folder contains other files that look like parts.
        ArtifactError: The release cannot be loaded.
        OSError: The store cannot be read, or a part cannot be written.
        TaskError: A process has died repeatedly.
    """
    if not output.file and (others := output.others(len(parts))):
        raise OutputError(
            f"{output.folder} contains {others[0]}, which is not a part of these lists: remove it, "
            "or choose another folder"
        )
    progress = Progress(parts[-1].end if parts else 0, total_parts=len(parts))
    expected = _whole_file(request, parts)
    if output.file and (found := _finished_file(output, expected)):
        progress.reused, progress.parts = progress.users, len(parts)
        progress.items = found["items"]
        progress.errors = [UserError(*error) for error in found["errors"]]
        return progress
    computing = [0] * len(parts)

    def on_report(number: int, users: int) -> None:
        computing[number] += users
        progress.computed += users
        on_progress(progress)

    # Copies without cached properties, which other processes compute themselves.
    worker = ListWorker(replace(request), replace(output))
    left_before = output.unfinished()
    try:
        with closing(run(worker, parts, on_report)) as results:
            for number, result in results:
                # A part is restarted if its process dies, so users may have been counted twice.
                actual = 0 if result.was_written else result.users
                progress.computed += actual - computing[number]
                progress.reused += result.users - actual
                progress.items += result.items
                progress.parts += 1
                progress.errors += result.errors
                on_progress(progress)
    finally:
        for name in output.unfinished() - left_before:
            with suppress(FileNotFoundError):
                output.remove(name)
    if output.file:
        errors = errors_as_json(progress.errors)
        _join(output, len(parts), {**expected, "items": progress.items, "errors": errors})
    return progress


def _whole_file(request: ListRequest, parts: Sequence[Part]) -> dict[str, str]:
    """Returns the metadata that identify the lists of a single file."""
    digests = "".join(part.digest for part in parts)
    users = hashlib.sha256(digests.encode()).hexdigest()
    return {"lists": request.digest, "users": users}


def _finished_file(output: ListFiles, expected: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the metadata of the single file if an earlier run has finished it, else None."""
    try:
        found = read_metadata(output.file_storage.read(output.file))
    except FileNotFoundError:
        return None
    return found if found is not None and expected.items() <= found.items() else None


def _join(output: ListFiles, parts: int, metadata: Mapping[str, Any]) -> None:
    """Joins the parts into one file, with a row group for each, and removes them."""
    file_storage, storage = output.file_storage, output.storage
    unfinished = file_storage.path(f"{PARTIAL}{output.file}")

    def part(number: int) -> pa.Table:
        content = storage.read(output.name(number))
        return pq.read_table(pa.BufferReader(content))

    with file_storage.fs.open(unfinished, "wb") as stream:
        table = part(0)
        source = json.loads(table.schema.metadata[METADATA])["source"]
        text = json.dumps({**metadata, "source": source}, sort_keys=True, ensure_ascii=False)
        schema = table.schema.with_metadata({METADATA: text.encode()})
        with pq.ParquetWriter(
            stream, schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for number in range(parts):
                table = part(number).replace_schema_metadata(schema.metadata)
                writer.write_table(table, row_group_size=max(1, table.num_rows))
    file_storage.call(file_storage.fs.mv, unfinished, file_storage.path(output.file))
    storage.call(storage.fs.rm, storage.root, recursive=True)
