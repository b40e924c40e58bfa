"""The client's commands, one for each of its calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

import marquee
from marquee.cli import _json, _options, _output, _status
from marquee.cli._batch import batch
from marquee.cli._options import Connection

_GENRES = ("genres_any", "genres_all", "genres_none")


@click.command()
@_options.subject
@_options.limit_with_reasons
@_options.page_token
@_options.item_filter
@_options.ranking
@_options.model_and_release
@click.option(
    "--reasons", "include_reasons", is_flag=True, help="Show why each item is recommended."
)
@_options.as_json
@click.pass_obj
def recommend(
    connection: Connection,
    /,
    user: str | None,
    limit: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Recommend items to a user or a visitor.

    \b
    Examples:
      marquee recommend --user 42
      marquee recommend --rate 318=5 --rate 296=4.5 --genre Comedy
      marquee recommend --user 42 --year-min 1990 --diversity 0.3 --reasons
    """  # noqa: D301 - \b keeps the lines as they are
    _options.require_subject(user, options)
    with connection.client() as client:
        answer = client.recommend(user, page_size=limit, include_metadata=True, **options)
        unknown = "" if as_json else _unknown_genres(client, options)
    click.echo(_json.dumps(answer) if as_json else _output.recommendations(answer) + unknown)


@click.command()
@click.argument("item_ids", nargs=-1, required=True, metavar="ITEM...")
@_options.subject
@_options.model_and_release
@_options.as_json
@click.pass_obj
def predict(
    connection: Connection,
    /,
    item_ids: tuple[str, ...],
    user: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict a user's ratings of items, in stars."""
    _options.require_subject(user, options)
    with connection.client() as client:
        answer = client.predict_ratings(user, item_ids, **options)
    click.echo(_json.dumps(answer) if as_json else _output.predicted_ratings(answer))


@click.command()
@click.option("--item", "item_id", required=True, help="Id of the item to compare with.")
@_options.limit
@_options.item_filter
@_options.model_and_release
@_options.as_json
@click.pass_obj
def similar(
    connection: Connection, /, item_id: str, limit: int, as_json: bool, **options: Any
) -> None:
    """List the items most similar to an item."""
    with connection.client() as client:
        answer = client.similar_items(item_id, page_size=limit, include_metadata=True, **options)
        unknown = "" if as_json else _unknown_genres(client, options)
    click.echo(_json.dumps(answer) if as_json else _output.similar_items(answer) + unknown)


@click.command()
@click.argument("words", nargs=-1, required=True)
@_options.limit
@_options.page_token
@_options.as_json
@click.pass_obj
def search(
    connection: Connection, /, words: tuple[str, ...], limit: int, page_token: str, as_json: bool
) -> None:
    """Find items by words in their titles."""
    with connection.client() as client:
        answer = client.search_items(" ".join(words), page_size=limit, page_token=page_token)
    click.echo(_json.dumps(answer) if as_json else _output.found_items(answer))


@click.command()
@click.argument("item_id", metavar="ITEM")
@_options.as_json
@click.pass_obj
def item(connection: Connection, /, item_id: str, as_json: bool) -> None:
    """Show an item: title, year, genres, ratings and attributes."""
    with connection.client() as client:
        answer = client.get_item(item_id)
    click.echo(_json.dumps(answer) if as_json else _output.item(answer))


@click.command()
@_options.as_json
@click.pass_obj
def status(connection: Connection, /, as_json: bool) -> None:
    """Show the gateway's releases, models and backends."""
    with connection.client() as client:
        answer = client.status()
    click.echo(_json.dumps(answer) if as_json else _status.status(answer))


def _unknown_genres(client: marquee.Client, options: Mapping[str, Any]) -> str:
    """Returns a line that lists the filter's unknown genres; empty if all genres are known.

    The service treats an unknown genre as one that no item has, so a misspelt genre is not an
    error.
    """
    named = [name for key in _GENRES for name in options.get(key) or ()]
    if not named:
        return ""
    try:
        release = client.status().release
    except marquee.MarqueeError:
        return ""  # the answer can still be shown
    known = release.genres if release is not None else ()
    folded = {genre.casefold() for genre in known}
    unknown = [name for name in dict.fromkeys(named) if name.casefold() not in folded]
    return f"\n{_output.unknown_genres(unknown, known)}" if known and unknown else ""


COMMANDS: tuple[click.Command, ...] = (batch, item, predict, recommend, search, similar, status)
