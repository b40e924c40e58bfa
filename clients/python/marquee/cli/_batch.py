"""`marquee batch`: recommendations for many users, printed or written to files.

The answers come from a gateway, or with `--store` from the installed services without a gateway.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click

import marquee
from marquee.cli import _json, _options, _output
from marquee.cli._batch_file import open_batch_file, rows
from marquee.cli._errors import PARTLY_FAILED, describe
from marquee.cli._options import Connection

# The entry point that computes lists without a gateway; see `marquee_services.commands.lists`.
_GROUP, _NAME = "marquee.batch", "store"
# Options that are used only with `--store`.
_STORE_OPTIONS = (
    "processes",
    "ray",
    "part_users",
    "trusted_keys",
    "cache_dir",
    "dense_limit",
    "candidates",
)
# The maximum number of subjects in one call of the API.
_MAX_SUBJECTS = 10_000
# Users per call when writing to a file. The answers of a call are sorted in memory, so that the
# rows are in the order of the users.
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
    help="File to write instead of printing: .parquet, .csv or .jsonl, with a row for each item. "
    "With --store also a folder, or a URL such as s3://bucket/lists/*.parquet, for one file per "
    "part of the users.",
)
@click.option(
    "--store",
    help="Release store, a folder or a URL: compute the answers on all cores of this machine from "
    "the release in production, without a gateway. Includes all users of the release unless some "
    "are given. Needs the services.",
)
@click.option("--reasons", "include_reasons", is_flag=True, help="Add the reasons.")
@_options.limit_with_reasons
@_options.item_filter
@_options.ranking
@_options.model_and_release
@_options.as_json
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="With --store: number of processes. Default: one per core.",
)
@click.option(
    "--ray",
    envvar="MARQUEE_RAY",
    help="With --store: address of a Ray cluster to use instead of this machine; `auto` finds "
    "one. The store and --out must be reachable from its nodes.",
)
@click.option(
    "--part-users",
    type=click.IntRange(min=1),
    help="With --store: users per part. Default: 500 to 50,000, depending on their number.",
)
@click.option(
    "--trusted-keys",
    envvar="MARQUEE_TRUSTED_KEYS",
    help="With --store: PEM file of trusted keys, one of which must have signed the release.",
)
@click.option(
    "--cache-dir",
    envvar="MARQUEE_CACHE_DIR",
    help="With --store: folder for copies of release files. Default: the servers' folder.",
)
@click.option(
    "--dense-limit",
    type=click.IntRange(min=0),
    help="With --store: the gateway's --dense-limit, if that is not the default.",
)
@click.option(
    "--candidates",
    type=click.IntRange(min=20),
    help="With --store: the gateway's --candidates, if that is not the default.",
)
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    users: tuple[str, ...],
    file: IO[str] | None,
    out: str | None,
    store: str | None,
    limit: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Recommend items to many users.

    Answers are printed as they arrive, in any order; with --json, one per line. With --out they are
    written to a file, in the order of the users. The file appears once it is complete.

    With --store, no gateway is called, and an interrupted run resumes with the first unfinished
    part. The lists are the same as for requests that name the release, so they do not depend on
    experiments or recorded feedback.

    \b
    Examples:
      marquee batch 1 2 3
      marquee batch --file users.txt --out picks.parquet
      marquee batch --store releases-store --out lists    # all users
      marquee batch --store releases-store --out 's3://bucket/lists/*.parquet' --reasons
    """  # noqa: D301 - \b keeps the lines as they are
    connection: Connection = ctx.obj
    user_ids = [*users, *filter(None, (line.removesuffix("\n") for line in file or ()))]
    if out is not None and as_json:
        raise click.UsageError("--json and --out cannot be combined")
    store_options = {name: options.pop(name) for name in _STORE_OPTIONS}
    options = {**options, "page_size": limit, "include_metadata": True}
    if store is not None:
        if out is None:
            raise click.UsageError("--store writes files and needs --out")
        if store_options["ray"] and store_options["processes"]:
            raise click.UsageError("--ray and --processes cannot be combined")
        given = None if file is None and not users else user_ids
        failed = _compute(given, out, store, store_options, options)
    elif not user_ids:
        raise click.UsageError("give user ids, --file, or --store for all users")
    elif out is not None and options["include_reasons"]:
        raise click.UsageError("--reasons with --out needs --store")
    else:
        with connection.client() as client:
            failed = (
                _print(client, user_ids, as_json, options)
                if out is None
                else _write(client, user_ids, Path(out), options)
            )
    if failed:
        ctx.exit(PARTLY_FAILED)


def _compute(
    user_ids: Sequence[str] | None,
    out: str,
    store: str,
    store_options: dict[str, Any],
    options: dict[str, Any],
) -> int:
    """Computes the answers with the services; returns the number of users with an error."""
    # Imported here, so that `marquee --help` does not import them.
    from marquee import _requests
    from marquee.v1 import recommender_service_pb2 as pb

    if user_ids is not None and not user_ids:
        raise click.UsageError("--file contains no user ids")
    found = [entry for entry in entry_points(group=_GROUP) if entry.name == _NAME]
    if not found:
        raise click.UsageError("--store needs the services, which are not installed")
    try:
        write: Callable[..., int] = found[0].load()
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"--store needs {error.name}, which is not installed: "
            "pip install 'marquee-recommender[batch,cf,gateway,inference]'"
        ) from error
    size = options.pop("page_size")
    request = pb.RecommendRequest(page_size=size, options=_requests.recommend_options(**options))
    return write(
        request,
        user_ids,
        out,
        store,
        **{name: value for name, value in store_options.items() if value is not None},
    )


def _print(
    client: marquee.Client, user_ids: Sequence[str], as_json: bool, options: dict[str, Any]
) -> int:
    """Prints the answers as they arrive; returns the number of users with an error."""
    failed = 0
    for part in _chunks(user_ids, _MAX_SUBJECTS):
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
    """Writes the answers to a file; returns the number of users with an error."""
    failed = written = 0
    progress = click.progressbar(
        length=len(user_ids), label="users", show_pos=True, file=sys.stderr
    )
    with open_batch_file(path) as write, progress:
        for part in _chunks(user_ids, _FILE_SUBJECTS):
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


def _chunks(user_ids: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yields the ids in chunks of at most `size`."""
    remaining = iter(user_ids)
    while part := list(islice(remaining, size)):
        yield part
