"""`marquee batch`: recommendations for many users, printed or written to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click

import marquee
from marquee.cli import _json, _options, _output
from marquee.cli._batch_file import open_batch_file, rows
from marquee.cli._errors import PARTLY_FAILED, describe
from marquee.cli._options import Connection

# The most subjects that the API takes in one call.
_MAX_SUBJECTS = 10_000
# Users of a call whose answers go to a file. They wait in memory until all of them are there, so
# that the rows are in the order of the users.
_FILE_SUBJECTS = 1_000


@click.command()
@click.argument("users", nargs=-1, metavar="[USER]...")
@click.option(
    "--file",
    "file",
    type=click.File(),
    help="File of user ids, one per line; - for standard input.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write to instead of printing: .parquet, .csv or .jsonl, a row for each item.",
)
@_options.limit
@_options.item_filter
@_options.ranking
@_options.answer_with
@_options.as_json
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    users: tuple[str, ...],
    file: IO[str] | None,
    out: Path | None,
    limit: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Recommend items to many users.

    Answers are printed as they arrive, in any order; with --json, one per line. With --out they are
    written to a file, in the order of the users. The file appears when all answers are in it.

    \b
    Examples:
      marquee batch 1 2 3
      marquee batch --file users.txt --out picks.parquet
      marquee releases users | marquee batch --file - --out all.parquet    # all users
    """  # noqa: D301 - \b keeps the lines as they are
    connection: Connection = ctx.obj
    user_ids = [*users, *(line.strip() for line in file or () if line.strip())]
    if not user_ids:
        raise click.UsageError("give user ids, or a --file of them")
    if out is not None and as_json:
        raise click.UsageError("--json prints and --out writes to a file; give one of them")
    options = {**options, "page_size": limit, "include_metadata": True}
    with connection.client() as client:
        failed = (
            _print(client, user_ids, as_json, options)
            if out is None
            else _write(client, user_ids, out, options)
        )
    if failed:
        ctx.exit(PARTLY_FAILED)


def _print(
    client: marquee.Client, user_ids: Sequence[str], as_json: bool, options: dict[str, Any]
) -> int:
    """Prints the answers as they arrive; returns the number of users who got an error."""
    failed = 0
    for part in _parts(user_ids, _MAX_SUBJECTS):
        for answer in client.batch_recommend(part, **options):
            failed += answer.error is not None
            if as_json:
                click.echo(_json.dumps(answer, indent=None))
            elif answer.error is not None:
                _report(answer)
            else:
                page = _output.recommendations(answer.unwrap())
                click.echo(f"user {answer.subject.user_id}\n\n{page}\n")
    return failed


def _write(
    client: marquee.Client, user_ids: Sequence[str], path: Path, options: dict[str, Any]
) -> int:
    """Writes the answers to a file; returns the number of users who got an error."""
    failed = written = 0
    progress = click.progressbar(
        length=len(user_ids), label="users", show_pos=True, file=sys.stderr
    )
    with open_batch_file(path) as write, progress:
        for part in _parts(user_ids, _FILE_SUBJECTS):
            answers = []
            for answer in client.batch_recommend(part, **options):
                answers.append(answer)
                progress.update(1)
            answers.sort(key=lambda answer: answer.index)
            table = []
            for answer in answers:
                if answer.error is None:
                    table += rows(answer)
                else:
                    failed += 1
                    _report(answer)
            write(table)
            written += len(table)
    users = len(user_ids) - failed
    click.echo(f"wrote {path}: {written:,} recommendations for {users:,} users", err=True)
    return failed


def _report(answer: marquee.BatchAnswer) -> None:
    if answer.error is not None:
        click.echo(f"user {answer.subject.user_id}: {describe(answer.error)}", err=True)


def _parts(user_ids: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yields the ids in parts of at most `size`."""
    remaining = iter(user_ids)
    while part := list(islice(remaining, size)):
        yield part
