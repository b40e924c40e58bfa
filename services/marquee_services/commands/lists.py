"""`marquee batch --store`, which the client's command calls through an entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import click

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.commands.support import errors_as_one_line
from marquee_services.server.environment import skip_keras

_MAX_ERRORS = 100


def write_batch(
    request: pb.RecommendRequest,
    user_ids: Sequence[str] | None,
    out: str,
    store: str,
    *,
    processes: int | None = None,
    ray: str | None = None,
    part_users: int | None = None,
    trusted_keys: str = "",
    cache_dir: str | None = None,
    dense_limit: int | None = None,
    candidates: int | None = None,
) -> int:
    """Writes the lists of users, computed by processes on this machine or by a Ray cluster.

    Args:
        request: The page size and the options of all lists.
        user_ids: The users; None for all users of the release.
        out: A folder, a pattern such as `s3://bucket/lists/*.parquet`, or a Parquet file.
        store: The release store.
        processes: The number of processes; None for the number of usable cores.
        ray: The address of a Ray cluster that computes the lists; None for processes on this
            machine.
        part_users: The number of users of a part; None to choose it by the number of users.
        trusted_keys: PEM file of public keys, one of which must have signed the release; "" to
            accept unsigned releases.
        cache_dir: Folder of the copies of release files; None for the servers' default.
        dense_limit: The gateway's setting with this name; None for its default.
        candidates: The gateway's setting with this name; None for its default.

    Returns:
        The number of users without a list.

    Raises:
        click.ClickException: An expected error, such as a missing release.
    """
    skip_keras()
    _require("pyarrow", "batch")
    if ray is not None:
        _require("ray", "ray")
    from marquee_core.cores import thread_limits, usable_cores
    from marquee_core.tasks.processes import run_in_processes
    from marquee_core.tasks.ray_tasks import run_on_ray
    from marquee_core.tasks.task import RunTasks, TaskError
    from marquee_services.errors import ServiceError
    from marquee_services.gateway.settings import GatewaySettings
    from marquee_services.lists.output import ListFiles, OutputError
    from marquee_services.lists.progress import ListProgress
    from marquee_services.lists.request import ListRequest
    from marquee_services.lists.run import cut_parts, default_part_size, write_lists

    progress = ListProgress(sys.stderr)
    try:
        with errors_as_one_line():
            release_id, users = _release(request.options, user_ids, store, trusted_keys, cache_dir)
            lists = ListRequest(
                _absolute(store),
                release_id,
                request.page_size,
                request.options.SerializeToString(),
                trusted_keys,
                cache_dir or GatewaySettings.cache_dir,
                GatewaySettings.dense_limit if dense_limit is None else dense_limit,
                GatewaySettings.candidates if candidates is None else candidates,
            )
            lists.check()
            parts = cut_parts(users, user_ids, part_users or default_part_size(users))
            output = ListFiles.parse(_absolute(out))
            if (
                output.file
                and output.file_storage.is_local
                and not Path(output.file_storage.root).is_dir()
            ):
                raise OutputError(f"{out}: there is no folder {output.file_storage.root}")
            run: RunTasks
            if ray is None:
                run = partial(
                    run_in_processes,
                    processes=processes or usable_cores(),
                    environment=thread_limits(threads=1),
                )
            else:
                run = partial(run_on_ray, address=ray)
            summary = write_lists(lists, output, parts, run, progress)
    except (OutputError, ServiceError, TaskError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        progress.end()
        click.echo(
            f"Interrupted; {progress.parts} finished. The same command continues from there.",
            err=True,
        )
        raise
    progress.end()
    for one in summary.errors[:_MAX_ERRORS]:
        click.echo(f"user {one.user_id}: {one.reason}: {one.message}", err=True)
    if len(summary.errors) > _MAX_ERRORS:
        click.echo(f"and {len(summary.errors) - _MAX_ERRORS:,} more users", err=True)
    listed = summary.users - len(summary.errors)
    found = f", of which {summary.reused:,} already existed" if summary.reused else ""
    click.echo(
        f"wrote {out}: {summary.items:,} recommendations for {listed:,} users{found}", err=True
    )
    return len(summary.errors)


def _require(module: str, extra: str) -> None:
    """Checks that the module of an extra is installed.

    Raises:
        click.UsageError: The module is not installed.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"this requires {module}, which is not installed: "
            f"pip install 'marquee-recommender[{extra}]'"
        ) from error


def _absolute(path: str) -> str:
    """Returns the absolute path, which is valid in every process; URLs are returned unchanged."""
    return path if "://" in path else os.path.abspath(path)


def _release(
    options: pb.RecommendOptions,
    user_ids: Sequence[str] | None,
    store: str,
    trusted_keys: str,
    cache_dir: str | None,
) -> tuple[str, int]:
    """Returns the release, by default the one in production, and the number of users.

    Raises:
        ArtifactError: The release does not exist, or none is in production.
        ModelNotFound: The release lacks the model in the options.
        OSError: The store cannot be read.
    """
    from marquee_core.errors import ArtifactError
    from marquee_core.release.contents import load_users
    from marquee_services.errors import ModelNotFound
    from marquee_services.gateway.settings import GatewaySettings
    from marquee_services.server.settings import open_store

    opened, release_id = open_store(store, trusted_keys), options.release_id
    if not release_id:
        production = opened.production()
        if production is None:
            raise ArtifactError(
                f"{opened.url} has no release in production; choose one with --release"
            )
        release_id = production.release_id
    manifest = opened.manifest(release_id)
    if options.model and options.model not in {model.name for model in manifest.models}:
        raise ModelNotFound(options.model)
    if user_ids is not None:
        return release_id, len(user_ids)
    cache = Path(cache_dir or GatewaySettings.cache_dir).expanduser()
    return release_id, len(load_users(opened, manifest, cache))
