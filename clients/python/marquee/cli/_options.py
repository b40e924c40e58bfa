"""Options shared by several commands. Their names are the client's keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

import marquee

Command = TypeVar("Command", bound=Callable[..., Any])

TIMEOUT = 5.0
"""Default deadline of a call in seconds. It is longer than that of the library, for people."""
BATCH_TIMEOUT = 60.0
"""Default deadline of a batch in seconds."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The options of the command group, which select the gateway.

    Attributes:
        address: The gateway's address.
        timeout: The deadline of calls and batches in seconds; None for the defaults.
        token: The bearer token, or the file that holds it; None for none.
        allow_insecure_token: Whether the token may be sent in plaintext to another machine.
        tls: Whether to use TLS, or the certificates to use it with.
    """

    address: str
    timeout: float | None
    token: str | marquee.TokenFile | None = field(repr=False)
    allow_insecure_token: bool
    tls: bool | marquee.TLS

    def client(self) -> marquee.Client:
        """Returns a client for one command.

        It makes no health checks, so that commands such as `status` can reach a gateway that is not
        serving yet.

        Raises:
            click.UsageError: The address is not a valid gRPC target, or the token would be sent in
                plaintext to another machine.
        """
        try:
            return marquee.Client(
                self.address,
                timeout=self.timeout or TIMEOUT,
                batch_timeout=self.timeout or BATCH_TIMEOUT,
                token=self.token,
                allow_insecure_token=self.allow_insecure_token,
                tls=self.tls,
                health_check=False,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def rating(text: str) -> tuple[str, float]:
    """Parses `ITEM=STARS` into an item id and a number of stars.

    Raises:
        click.BadParameter: The text does not have this form.
    """
    item_id, _, stars = text.rpartition("=")
    try:
        if item_id:
            return item_id, float(stars)
    except ValueError:
        pass
    raise click.BadParameter(f"{text!r} is not ITEM=STARS, for example 318=4.5")


def as_json(command: Command) -> Command:
    """Adds the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def limit(command: Command) -> Command:
    """Adds the option `--limit`, for commands without reasons."""
    return _limit("")(command)


def limit_with_reasons(command: Command) -> Command:
    """Adds the option `--limit`, for commands that can show reasons."""
    return _limit(" With --reasons, at most 100.")(command)


def _limit(more: str) -> Callable[[Command], Command]:
    return click.option(
        "-n",
        "--limit",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help=f"Number of items, at most 1,000.{more}",
    )


def page_token(command: Command) -> Command:
    """Adds the option `--page-token`."""
    return click.option(
        "--page-token", default="", help="Token of the page to show, printed by the previous page."
    )(command)


def _by_item(
    _context: click.Context, _parameter: click.Parameter, pairs: Sequence[tuple[str, float]]
) -> dict[str, float]:
    """Returns ratings by item id, oldest first.

    Raises:
        click.BadParameter: An item occurs twice.
    """
    ratings: dict[str, float] = {}
    for item, stars in pairs:
        if item in ratings:
            raise click.BadParameter(f"item {item!r} occurs twice")
        ratings[item] = stars
    return ratings


def subject(command: Command) -> Command:
    """Adds the options of a subject: `--user`, `--rate` and `--like`."""
    return _apply(
        command,
        click.option("--user", help="Id of the user."),
        click.option(
            "--rate",
            "ratings",
            metavar="ITEM=STARS",
            type=rating,
            multiple=True,
            callback=_by_item,
            help="A new rating by --user or a visitor. Repeatable, oldest first.",
        ),
        click.option(
            "--like",
            "liked_item_ids",
            metavar="ITEM",
            multiple=True,
            help="An item that the user or visitor likes. Repeatable, oldest first.",
        ),
    )


def require_subject(user: str | None, options: Mapping[str, Any]) -> None:
    """Checks that at least one of the options of `subject` is given.

    Args:
        user: The user.
        options: The other options.

    Raises:
        click.UsageError: None of them is given.
    """
    if not (user or options["ratings"] or options["liked_item_ids"]):
        raise click.UsageError("give at least one of --user, --rate and --like")


def item_filter(command: Command) -> Command:
    """Adds the options that filter items."""
    return _apply(
        command,
        _repeatable("--genre", "genres_any", "GENRE", "Items with any of these genres."),
        _repeatable("--genre-all", "genres_all", "GENRE", "Items with all of these genres."),
        _repeatable("--genre-none", "genres_none", "GENRE", "Items with none of these genres."),
        click.option("--year-min", type=int, help="Items released in this year or later."),
        click.option("--year-max", type=int, help="Items released in this year or earlier."),
        click.option(
            "--only",
            "allowed_item_ids",
            metavar="ITEM",
            multiple=True,
            callback=lambda _ctx, _param, items: items or None,
            help="Only this item. Repeatable.",
        ),
        _repeatable("--exclude", "excluded_item_ids", "ITEM", "Exclude this item."),
    )


def ranking(command: Command) -> Command:
    """Adds the options that affect the ranking."""
    return _apply(
        command,
        click.option("--include-seen", is_flag=True, help="Include items that the user has rated."),
        click.option(
            "--min-stars",
            "min_predicted_stars",
            type=float,
            help="Only items with at least this predicted rating, in stars.",
        ),
        click.option(
            "--diversity",
            type=float,
            default=0.0,
            show_default=True,
            help="0 ranks only by score; higher values, up to 1, diversify the list.",
        ),
    )


def model_and_release(command: Command) -> Command:
    """Adds the options that select a model and a release."""
    return _apply(
        command,
        click.option("--model", default="", help="Use only this model instead of the ensemble."),
        click.option("--release", "release_id", default="", help="Use this release."),
    )


def connection_tls(
    tls: bool, ca: Path | None, cert: Path | None, key: Path | None, server_name: str | None
) -> bool | marquee.TLS:
    """Returns the `tls` argument of the client for the --tls options.

    Raises:
        click.UsageError: Only one of the client's certificate and key is given.
    """
    if not any((ca, cert, key, server_name)):
        return tls
    try:
        return marquee.TLS(ca=ca, cert=cert, key=key, server_name=server_name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _repeatable(
    flag: str, name: str, metavar: str, description: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        flag, name, metavar=metavar, multiple=True, help=f"{description} Repeatable."
    )


def _apply(command: Command, *options: Callable[[Any], Any]) -> Command:
    """Adds several options, which `--help` shows in the given order."""
    for option in reversed(options):
        command = option(command)
    return command
