"""The commands `marquee releases …`, which list, verify, promote, roll back and audit releases.

Importing this module is cheap, so that `marquee --help` stays fast: each command imports what it
needs when it runs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marquee_services.commands.support import errors_as_one_line, store_options
from marquee_services.server.settings import open_store

if TYPE_CHECKING:
    from marquee_core.release.store import ReleaseStore

# The number of users whose ids are decoded and printed together.
_BLOCK_USERS = 10_000
_MAX_TEXT = 1000


def _text_option(name: str, help: str, **options: Any) -> Callable[[Any], Any]:  # noqa: A002
    """Returns an option for a text in the audit."""

    def check(_: click.Context, __: click.Parameter, value: str) -> str:
        if len(value) > _MAX_TEXT:
            raise click.BadParameter(f"longer than {_MAX_TEXT} characters")
        return value

    return click.option(f"--{name}", default="", callback=check, help=help, **options)


_why = _text_option("why", "The reason, for the audit.")
_by = _text_option(
    "by",
    "Who makes the change, for the audit; by default, the user and host of this process.",
    envvar="MARQUEE_BY",
    show_envvar=True,
)


@click.group()
@store_options("promotions and rollbacks")
@click.pass_context
def releases(context: click.Context, store: str, trusted_keys: str, signing_key: str) -> None:
    """List, verify, promote, roll back and sign releases."""
    with errors_as_one_line():
        context.obj = open_store(store, trusted_keys, signing_key)


@releases.command("list")
@click.pass_obj
def list_releases(store: ReleaseStore) -> None:
    """List the releases, newest first; * marks the one in production.

    "serves" is the number of ratings on which a release was trained, "measured by" the method by
    which its test ratings were selected, and "on" their number.
    """
    from marquee.cli.table import render

    with errors_as_one_line():
        production = store.production()
        manifests = store.manifests()
    current = production.release_id if production else ""
    rows = [
        [
            "*" if manifest.release_id == current else "",
            manifest.release_id,
            manifest.data.source,
            f"{manifest.data.rating_count:,}",
            str(manifest.evaluation.get("split", "")),
            f"{manifest.evaluation.get('test_ratings', 0):,}",
            _metric(manifest.evaluation.get("ensemble_metrics", {}), "test_mse"),
            _metric(manifest.evaluation.get("ensemble_metrics", {}), "ndcg@10"),
        ]
        for manifest in manifests
    ]
    headers = ["", "release", "data", "serves", "measured by", "on", "test MSE", "NDCG@10"]
    droppable = ("measured by", "on", "data", "serves")
    click.echo(render(headers, rows, "lllrlrrr", droppable=droppable))


@releases.command("show")
@click.argument("release_id")
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
@click.pass_obj
def show_release(store: ReleaseStore, release_id: str, as_json: bool) -> None:
    """Show the data, the evaluation and the models of a release, and the gate's verdict.

    With --json, `gate` is the verdict from before the release was published. If there are later
    verdicts, `later_verdicts` lists them, oldest first; they are not part of the manifest.
    """
    from marquee_core.release.verdicts import recorded_verdicts
    from marquee_services.commands.release_summary import summary

    with errors_as_one_line():
        manifest = store.manifest(release_id)
        later = recorded_verdicts(store.storage, release_id)
    if as_json:
        shown = json.loads(manifest.to_json())
        if later:
            shown["later_verdicts"] = [asdict(verdict) for verdict in later]
        click.echo(json.dumps(shown, indent=2, sort_keys=True))
        return
    click.echo(summary(manifest), nl=False)
    verdict = later[-1] if later else manifest.gate
    if verdict is not None:
        click.echo("\n".join(["", *verdict.lines()]))


@releases.command("users")
@click.argument("release_id", required=False)
@click.pass_obj
def list_users(store: ReleaseStore, release_id: str | None) -> None:
    """List the ids of a release's users, one per line; by default, of the one in production.

    \b
    Example:
      marquee releases users | marquee batch --file - --out all.parquet
    """  # noqa: D301 - \b keeps click from rewrapping the lines
    from marquee_core.errors import ArtifactError
    from marquee_core.release.contents import load_users

    with errors_as_one_line(), tempfile.TemporaryDirectory(prefix="marquee-users-") as cache:
        production = store.production()
        if release_id is None and production is None:
            raise ArtifactError("no release is in production")
        found = release_id or (production.release_id if production else "")
        users = load_users(store, store.manifest(found), Path(cache))
        for first in range(0, len(users), _BLOCK_USERS):
            block = users.ids(range(first, min(first + _BLOCK_USERS, len(users))))
            click.echo("\n".join(block))


@releases.command("verify")
@click.argument("release_id")
@click.option("--files-only", is_flag=True, help="Only compare the files with their digests.")
@click.pass_obj
def verify_one_release(store: ReleaseStore, release_id: str, files_only: bool) -> None:
    """Verify that servers can load and serve a release, without promoting it.

    Compares every file with its SHA-256 digest, loads the release as the servers do, answers every
    kind of request with it, and compares precomputed pages with computed ones.
    """
    from marquee_services.promotion import verify

    with errors_as_one_line():
        if files_only:
            files = len(store.verify_files(release_id).files)
            click.echo(f"{release_id}: {files} files match their digests")
            return
        found = verify(store, release_id)
    click.echo(
        f"{release_id}: {found.files} files match their digests, {found.answers} requests were "
        f"answered, {found.precomputed} precomputed pages agree with computed ones"
    )


@releases.command("promote")
@click.argument("release_id")
@_why
@_by
@click.option(
    "--force",
    is_flag=True,
    help="Check only the files, and bypass the gate; the audit records it.",
)
@click.option("--approve", is_flag=True, help="Promote it even if the gate asks for approval.")
@click.option(
    "--require-approval",
    is_flag=True,
    envvar="MARQUEE_REQUIRE_APPROVAL",
    show_envvar=True,
    help="Make the gate ask for approval of every release.",
)
@click.pass_obj
def promote_release(
    store: ReleaseStore,
    release_id: str,
    why: str,
    by: str,
    force: bool,
    approve: bool,
    require_approval: bool,
) -> None:
    """Put a release in production, if the gate finds it as good as the current one.

    RELEASE_ID may be `newest`, for the release that was published last.

    The release is first verified as by `marquee releases verify`. Then the gate compares both
    releases on ratings that neither has seen, and checks the recommendations of the new one. The
    exit code is 3 if the gate refuses the release, and 4 if it asks for --approve. The verdict is
    stored with the release; see `marquee releases show`.
    """
    from marquee_core.release.verdict import Decision
    from marquee_services.promotion import EXIT_CODES, NEWEST, newest_release, promote

    with errors_as_one_line():
        if release_id == NEWEST:
            release_id = newest_release(store)
        done = promote(
            store,
            release_id,
            why=why,
            by=by,
            force=force,
            approve=approve,
            require_approval=require_approval,
        )
    if done.verdict is not None:
        click.echo("\n".join(done.verdict.lines()))
    if done.production is not None:
        click.echo(f"{done.production.release_id} is in production")
        return
    flag = "--force" if done.decision is Decision.REFUSE else "--approve"
    click.echo(f"{release_id} was not promoted; {flag} promotes it", err=True)
    sys.exit(EXIT_CODES[done.decision])


@releases.command("rollback")
@_why
@_by
@click.pass_obj
def roll_back_release(store: ReleaseStore, why: str, by: str) -> None:
    """Put the previous release back in production; damaged and deleted ones are skipped."""
    with errors_as_one_line():
        production = store.rollback(why=why, by=by)
    click.echo(f"{production.release_id} is in production")


@releases.command("prune")
@click.option(
    "--keep", required=True, type=click.IntRange(min=1), help="Number of newest releases to keep."
)
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    help="Address of a gateway, host:port; the releases that it and its backends have loaded are "
    "kept. May be repeated. Options of the connection, such as --token-file and --tls, are given "
    "before `releases`.",
)
@click.option(
    "--recent-hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Keep releases that were in production within this time, as servers may still use them.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.pass_obj
def prune_releases(
    store: ReleaseStore, keep: int, gateways: tuple[str, ...], recent_hours: float, dry_run: bool
) -> None:
    """Delete old releases, and the unfinished files of killed processes.

    The newest releases are kept, as are the one in production and its predecessor, those of running
    experiments, those that were in production recently, and those that the given gateways report as
    loaded. Servers use their own copies of release files, so they are not affected.
    """
    from marquee_core.release.pruning import prune
    from marquee_services.commands.release_summary import pruning_lines

    with errors_as_one_line():
        loaded = {name for address in gateways for name in _loaded_by(address)}
        found = prune(store, keep, loaded, timedelta(hours=recent_hours), dry_run)
    click.echo("\n".join(pruning_lines(found, dry_run)))


def _loaded_by(address: str) -> set[str]:
    """Returns the releases that a gateway and its backends have loaded.

    Raises:
        ClickException: The gateway cannot be called or does not respond.
    """
    from dataclasses import replace

    import marquee
    from marquee.cli import Connection

    options = click.get_current_context().find_root().find_object(Connection)
    options = options or Connection(address, None, None, False, False)
    with replace(options, address=address).client() as client:
        try:
            status = client.status()
        except marquee.MarqueeError as error:
            text = f"the gateway at {address} does not respond: {error}"
            raise click.ClickException(text) from error
    backends = (name for backend in status.backends for name in backend.loaded_release_ids)
    return {*status.loaded_release_ids, *backends}


@releases.command("keygen")
@click.argument("path", type=click.Path(path_type=Path))
def make_key(path: Path) -> None:
    """Generate a signing key: the private key in PATH, and the public key in PATH.pub."""
    from marquee_core.release.signing import generate_key

    with errors_as_one_line():
        public, name = generate_key(path)
    click.echo(f"{path}: private key, for `marquee train --signing-key`")
    click.echo(f"{public}: public key {name}, for `marquee serve … --trusted-keys`")


@releases.command("sign")
@click.argument("release_id")
@click.option(
    "--signing-key",
    required=True,
    envvar="MARQUEE_SIGNING_KEY",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="PEM file of the Ed25519 private key.",
)
@click.pass_obj
def sign_release(store: ReleaseStore, release_id: str, signing_key: Path) -> None:
    """Check the files of a release, and add a signature to those that it has."""
    from marquee_core.release.signing import Signer

    with errors_as_one_line():
        signer = Signer.load(signing_key)
        store.trusted = None  # The release may have no valid signature yet.
        store.sign(release_id, signer)
    click.echo(f"{release_id} is signed by the key {signer.id}")


@releases.command("log")
@click.option("--limit", default=20, show_default=True, help="Most changes to show; 0 for all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_obj
def show_log(store: ReleaseStore, limit: int, as_json: bool) -> None:
    """Show the changes of the production pointer, newest first: who, what, when and why."""
    from marquee.cli.table import render

    with errors_as_one_line():
        changes = store.pointer.audit(limit)
    if as_json:
        for state in changes:
            click.echo(json.dumps(asdict(state)))
        return
    rows = [
        [
            str(state.change.number),
            state.promoted_at[:19],
            state.change.by,
            state.change.action + (" (forced)" if state.change.forced else ""),
            state.release_id,
            state.change.previous_id,
            state.change.why,
        ]
        for state in changes
    ]
    headers = ["#", "when (UTC)", "who", "what", "release", "before", "why"]
    click.echo(render(headers, rows, "rllllll", droppable=("before", "why")))


def _metric(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else ""
