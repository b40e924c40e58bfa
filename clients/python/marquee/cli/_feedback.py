"""The commands that record, list and delete feedback."""

from __future__ import annotations

import click

from marquee import FeedbackEvent, FeedbackKind
from marquee.cli import _json, _options, _output
from marquee.cli._options import Connection


@click.command()
@click.argument("user", metavar="USER")
@click.argument("ratings", nargs=-1, metavar="[ITEM=STARS]...", type=_options.rating)
@click.option(
    "--like", "liked", metavar="ITEM", multiple=True, help="An item the user likes. Repeatable."
)
@click.option(
    "--dislike",
    "disliked",
    metavar="ITEM",
    multiple=True,
    help="An item the user dislikes. Repeatable.",
)
@click.option("--list", "list_id", default="", help="Recommendation id of the list of the items.")
@_options.as_json
@click.pass_obj
def rate(
    connection: Connection,
    /,
    user: str,
    ratings: tuple[tuple[str, float], ...],
    liked: tuple[str, ...],
    disliked: tuple[str, ...],
    list_id: str,
    as_json: bool,
) -> None:
    """Record a user's ratings, likes and dislikes.

    The next recommendations take them into account. Example: marquee rate 42 50=5 18=3.5
    """
    events = [
        FeedbackEvent(user_id=user, item_id=item, stars=stars, recommendation_id=list_id)
        for item, stars in ratings
    ]
    for kind, items in ((FeedbackKind.LIKE, liked), (FeedbackKind.DISLIKE, disliked)):
        events += [
            FeedbackEvent(user_id=user, item_id=item, kind=kind, recommendation_id=list_id)
            for item in items
        ]
    if not events:
        raise click.UsageError("give at least one ITEM=STARS, --like or --dislike")
    with connection.client() as client:
        answer = client.feedback.record(events)
    click.echo(_json.dumps(answer) if as_json else _output.recorded(answer))


@click.group()
def feedback() -> None:
    """List and delete recorded feedback."""


@feedback.command("list")
@click.argument("user", metavar="USER")
@_options.limit
@_options.page_token
@_options.as_json
@click.pass_obj
def list_events(
    connection: Connection, /, user: str, limit: int, page_token: str, as_json: bool
) -> None:
    """List a user's events, the most recent first. Needs an admin token."""
    with connection.client() as client:
        answer = client.feedback.events(user, page_size=limit, page_token=page_token)
    click.echo(_json.dumps(answer) if as_json else _output.feedback_page(answer))


@feedback.command()
@click.argument("user", metavar="USER")
@click.option("--item", "item_id", default="", help="Delete all events about this item.")
@click.option("--event", "event_id", default="", help="Delete the event with this key.")
@_options.as_json
@click.pass_obj
def delete(
    connection: Connection, /, user: str, item_id: str, event_id: str, as_json: bool
) -> None:
    """Delete events of a user."""
    if bool(item_id) == bool(event_id):
        raise click.UsageError("give either --item or --event")
    with connection.client() as client:
        answer = client.feedback.delete(user, item_id=item_id, event_id=event_id)
    click.echo(_json.dumps(answer) if as_json else _output.deleted(answer))


@feedback.command()
@click.argument("user", metavar="USER")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_options.as_json
@click.pass_obj
def forget(connection: Connection, /, user: str, yes: bool, as_json: bool) -> None:
    """Delete everything about a user, permanently. Needs an admin token."""
    if not yes:
        click.confirm(f"Permanently delete everything about user {user!r}?", abort=True, err=True)
    with connection.client() as client:
        answer = client.feedback.forget(user)
    click.echo(_json.dumps(answer) if as_json else _output.deleted(answer))


COMMANDS: tuple[click.Command, ...] = (feedback, rate)
