"""Loads ratings and their split, and opens the release store, as the settings specify."""

from __future__ import annotations

from dataclasses import dataclass

import click

from marquee_core.feedback.events import LogUnavailable, Mark
from marquee_core.feedback.location import log_url
from marquee_core.release.store import ReleaseStore
from marquee_services.server.settings import open_store as open_with_keys
from marquee_trainer.commands.settings import (
    AUTO_SPLIT,
    DataSettings,
    FeedbackSettings,
    ReadSettings,
)
from marquee_trainer.data.columns import parse_columns, parse_roles
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.items import ITEM_ROLES
from marquee_trainer.data.missing import parse_missing_values
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import Split, automatic_split, split_by

# Seconds that the trainer waits for the feedback log; reads of the whole log are large.
_LOG_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class TrainingData:
    """The data that a release is trained on.

    Attributes:
        dataset: The ratings, including recorded feedback.
        split: Their training and test part.
        mark: The position up to which the feedback log was read; None without a log.
    """

    dataset: RatingsDataset
    split: Split
    mark: Mark | None


def load_with_feedback(settings: FeedbackSettings, up_to: Mark | None = None) -> TrainingData:
    """Loads ratings, merges recorded feedback into them, and splits them.

    Args:
        settings: The sources of ratings and feedback, and how the ratings are split.
        up_to: The position up to which an interrupted training had read the log; None to read it
            all.

    Raises:
        RatingsError: The ratings cannot be read, the source defines its own split, which feedback
            cannot be added to, or no ratings are left.
        ClickException: The feedback log cannot be read, or its URL cannot be used.
    """
    if not settings.feedback:
        return TrainingData(*load_and_split(settings), None)
    # Imported here because it requires the database library.
    from marquee_trainer.data.merge_feedback import merge_feedback
    from marquee_trainer.data.recorded_feedback import read_feedback

    dataset, split = _load(settings)
    if split is not None:
        raise RatingsError("--feedback cannot be combined with --train or --test")
    try:
        recorded = read_feedback(log_url(settings.feedback, settings.store), _LOG_TIMEOUT_S, up_to)
    except (LogUnavailable, ValueError) as error:
        raise click.ClickException(f"the feedback log: {error}") from error
    merged = merge_feedback(dataset, recorded)
    for note in merged.notes():
        click.echo(f"  feedback: {note}", err=True)
    return TrainingData(merged.dataset, split_ratings(settings, merged.dataset), recorded.mark)


def load_and_split(settings: DataSettings) -> tuple[RatingsDataset, Split]:
    """Loads ratings and splits them into a training part and a test part.

    Args:
        settings: The source of the ratings, and how they are split. A split that the source itself
            defines, such as `u1.base` and `u1.test`, takes precedence over `settings.split`.

    Raises:
        RatingsError: The ratings cannot be read.
    """
    dataset, split = _load(settings)
    return dataset, split or split_ratings(settings, dataset)


def _load(settings: DataSettings) -> tuple[RatingsDataset, Split | None]:
    """Loads the ratings, and the split if the source defines one."""
    loaded = load_ratings(
        settings.data,
        manual_dir=settings.manual_dir or None,
        train_file=settings.train_file or None,
        test_file=settings.test_file or None,
        seed=settings.seed,
        options=read_options(settings),
    )
    for note in loaded.interpretation.notes:
        click.echo(f"  {note}", err=True)
    return loaded.dataset, loaded.split


def split_ratings(settings: DataSettings, dataset: RatingsDataset) -> Split:
    """Splits ratings as the settings say.

    Raises:
        RatingsError: The ratings cannot be split in this way.
    """
    rows, share, kind = dataset.file_order, settings.test_fraction, settings.split
    if kind == AUTO_SPLIT:
        kind = automatic_split(dataset, rows, share)
    return split_by(kind, dataset, rows, share, settings.seed)


def read_options(settings: ReadSettings) -> ReadOptions:
    """Parses the settings of how to read ratings.

    Raises:
        RatingsError: The columns or the scale are not in the required form.
    """
    return ReadOptions(
        columns=parse_columns(settings.columns),
        query=settings.query,
        scale=RatingScale.parse(settings.scale) if settings.scale else None,
        on_repeat=settings.on_repeat,
        on_missing=settings.on_missing,
        missing_values=parse_missing_values(settings.missing_values),
        items=settings.items,
        item_columns=parse_roles(settings.item_columns, ITEM_ROLES, "--item-columns"),
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
