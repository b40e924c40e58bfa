"""Options that several commands share, named as the client's keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

import marquee

Command = TypeVar("Command", bound=Callable[..., Any])

TIMEOUT = 5.0
"""Seconds that a call may take: more than the library's, for a person waits, and just once."""
BATCH_TIMEOUT = 60.0
"""Seconds that a batch may take."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the gateway, from the options before the command.

    Attributes:
        address: The gateway's address.
        timeout: Seconds that a call or batch may take; None for the defaults.
        token: The bearer token.
        allow_insecure_token: Whether it may travel in plaintext to other machines.
        tls: How to secure the connection.
    """

    address: str
    timeout: float | None
    token: str | None = field(repr=False)
    allow_insecure_token: bool
    tls: bool | marquee.TLS

    def client(self) -> marquee.Client:
        """A client for one command.

        Without health watch: who asks by hand wants the gateway's own word, above all from one
        that is not serving.

        Raises:
            click.UsageError: The options contradict each other.
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
    """The item's id and the stars of `ITEM=STARS`.

    Raises:
        click.BadParameter: The text is not of this form.
    """
    item_id, _, stars = text.rpartition("=")
    try:
        if item_id:
            return item_id, float(stars)
    except ValueError:
        pass
    raise click.BadParameter(f"{text!r} is not ITEM=STARS, for example 318=4.5")


def as_json(command: Command) -> Command:
    """Adds `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def limit(command: Command) -> Command:
    """Adds `--limit`."""
    return click.option(
        "-n", "--limit", default=10, show_default=True, help="How many items; at most 1,000."
    )(command)


def page_token(command: Command) -> Command:
    """Adds `--page-token`."""
    return click.option(
        "--page-token", default="", help="Go on from the page that gave this token."
    )(command)


def _latest_last(
    _context: click.Context, _parameter: click.Parameter, pairs: Sequence[tuple[str, float]]
) -> dict[str, float]:
    """Ratings by item id, in order; a later one of the same item takes the place of an earlier."""
    ratings: dict[str, float] = {}
    for item, stars in pairs:
        ratings.pop(item, None)
        ratings[item] = stars
    return ratings


def subject(command: Command) -> Command:
    """Adds the options that say who an answer is for."""
    return _apply(
        command,
        click.option("--user", help="A user's id."),
        click.option(
            "--rate",
            "ratings",
            metavar="ITEM=STARS",
            type=rating,
            multiple=True,
            callback=_latest_last,
            help="A rating: a visitor's, or a fresh one of the user. Repeatable, the latest last.",
        ),
        click.option(
            "--like",
            "liked_item_ids",
            metavar="ITEM",
            multiple=True,
            help="An item the user likes. Repeatable, the latest last.",
        ),
    )


def item_filter(command: Command) -> Command:
    """Adds the options that say which items qualify."""
    return _apply(
        command,
        _repeatable("--genre", "genres_any", "GENRE", "Items of this genre, or another given one."),
        _repeatable("--genre-all", "genres_all", "GENRE", "Items of this genre and all given so."),
        _repeatable("--genre-none", "genres_none", "GENRE", "No items of this genre."),
        click.option("--year-min", type=int, help="Items made in this year or later."),
        click.option("--year-max", type=int, help="Items made in this year or before."),
        click.option(
            "--only",
            "allowed_item_ids",
            metavar="ITEM",
            multiple=True,
            callback=lambda _ctx, _param, items: items or None,
            help="Only this item, and others given so. Repeatable.",
        ),
        _repeatable("--exclude", "excluded_item_ids", "ITEM", "Not this item."),
    )


def ranking(command: Command) -> Command:
    """Adds the options of a recommendation."""
    return _apply(
        command,
        click.option("--include-seen", is_flag=True, help="Also items that the user has rated."),
        click.option(
            "--min-stars",
            "min_predicted_stars",
            type=float,
            help="Only items with at least this predicted rating.",
        ),
        click.option(
            "--diversity",
            type=float,
            default=0.0,
            show_default=True,
            help="0 ranks by score alone; up to 1 makes the list more varied.",
        ),
    )


def answer_with(command: Command) -> Command:
    """Adds the choice of a model and a release."""
    return _apply(
        command,
        click.option("--model", default="", help="Ask this model alone, not the ensemble."),
        click.option("--release", "release_id", default="", help="Ask this release."),
    )


def connection_tls(
    tls: bool, ca: Path | None, cert: Path | None, key: Path | None, server_name: str | None
) -> bool | marquee.TLS:
    """What the TLS options ask for; any of them asks for TLS.

    Raises:
        click.UsageError: One of the client's certificate and key is missing.
    """
    if not any((ca, cert, key, server_name)):
        return tls
    try:
        return marquee.TLS(ca=ca, cert=cert, key=key, server_name=server_name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _repeatable(
    flag: str, name: str, metavar: str, text: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(flag, name, metavar=metavar, multiple=True, help=f"{text} Repeatable.")


def _apply(command: Command, *options: Callable[[Any], Any]) -> Command:
    """Adds options in the order in which `--help` shows them."""
    for option in reversed(options):
        command = option(command)
    return command
