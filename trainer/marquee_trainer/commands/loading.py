"""Loads what the commands' settings name: ratings with their split, and the release store."""

from __future__ import annotations

import click

from marquee_core.release.store import ReleaseStore
from marquee_services.server.settings import open_store as open_with_keys
from marquee_trainer.commands.settings import AUTO_SPLIT, DataSettings, ReadSettings
from marquee_trainer.data.columns import parse_columns
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import Split, automatic_split, split_by


def load_and_split(settings: DataSettings) -> tuple[RatingsDataset, Split]:
    """Loads ratings and splits them into a training part and a test part.

    Args:
        settings: Where the ratings are, and how they are split. A split that the source itself
            defines, such as `u1.base` and `u1.test`, takes precedence over `settings.split`.

    Raises:
        RatingsError: The ratings cannot be read.
    """
    loaded = load_ratings(
        settings.data,
        manual_dir=settings.manual_dir or None,
        train_file=settings.train_file or None,
        test_file=settings.test_file or None,
        seed=settings.seed,
        options=read_options(settings),
    )
    for note in loaded.understood.notes:
        click.echo(f"  {note}", err=True)
    if loaded.split is not None:
        return loaded.dataset, loaded.split
    rows, share = loaded.dataset.file_order, settings.test_fraction
    kind = settings.split
    if kind == AUTO_SPLIT:
        kind = automatic_split(loaded.dataset, rows, share)
    split = split_by(kind, loaded.dataset, rows, share, settings.seed)
    return loaded.dataset, split


def read_options(settings: ReadSettings) -> ReadOptions:
    """The settings of how to read ratings, parsed.

    Raises:
        RatingsError: The columns or the scale are not in the form that they must have.
    """
    return ReadOptions(
        columns=parse_columns(settings.columns),
        query=settings.query,
        scale=RatingScale.parse(settings.scale) if settings.scale else None,
        on_repeat=settings.on_repeat,
        items=settings.items,
        genre_separator=settings.genre_separator,
        allow_untitled=settings.allow_untitled,
    )


def open_store(url: str, signing_key: str = "") -> ReleaseStore:
    """Opens a release store.

    Args:
        url: A folder, or a URL that fsspec supports.
        signing_key: PEM file of the key that signs published releases; empty for none.

    Raises:
        ClickException: The URL's protocol is unknown, its file system is not installed, or the file
            holds no private key.
    """
    try:
        return open_with_keys(url, signing_key=signing_key)
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
