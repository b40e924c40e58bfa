"""`marquee data check`: shows how ratings are interpreted, without training on them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click
import numpy as np

from marquee.cli.table import render
from marquee_core.arrays import Float64
from marquee_core.release.verdict import Decision
from marquee_trainer.commands.loading import read_options, split_ratings
from marquee_trainer.commands.settings import DataCheckSettings, DataSettings
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.source import LoadedRatings, load_ratings
from marquee_trainer.gate.inputs import InputLimits, input_checks
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import check_sizes, validation_split

# Up to this many distinct ratings are listed one by one; more are counted in ranges.
_MOST_LISTED = 21
_RANGES = 10
_BAR = 30  # characters
_FEW_RATINGS = 5
_WHOLE_FLOAT = re.compile(r"-?\d+\.0+")
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def run_check(source: str, settings: DataCheckSettings) -> None:
    """Loads ratings and prints how they were interpreted.

    Raises:
        RatingsError: The ratings cannot be read or interpreted.
    """
    loaded = load_ratings(
        source, manual_dir=settings.manual_dir or None, options=read_options(settings)
    )
    click.echo(describe(loaded, settings.rows))
    problems = training_problems(loaded)
    if problems:
        click.echo("\n`marquee train` would refuse these ratings")
    for problem in problems:
        click.echo(f"  - {problem}")


def training_problems(loaded: LoadedRatings) -> list[str]:
    """Returns the reasons for which training, with its defaults, would refuse ratings."""
    dataset = loaded.dataset.of_modelled_items()
    problems = [
        f"{check.name}: {check.text}"
        for check in input_checks(loaded.dataset, InputLimits(), None)
        if check.decision is Decision.REFUSE
    ]
    try:
        split = loaded.split or split_ratings(DataSettings(), dataset)
        config = TrainingConfig.for_dataset(dataset)
        check_sizes(dataset, split, validation_split(dataset, split, config))
    except RatingsError as error:
        problems.append(str(error))
    return problems


def describe(loaded: LoadedRatings, shown_rows: int = 5) -> str:
    """Describes ratings: columns, scale, counts, sparsity, distribution and first rows.

    Args:
        loaded: The ratings.
        shown_rows: The number of rows to show, in the order of the source.
    """
    dataset = loaded.dataset
    parts = [_facts(loaded), _activity(dataset), _distribution(dataset)]
    if shown_rows:
        parts.append(_first_rows(dataset, shown_rows))
    notes = [*loaded.interpretation.notes, *_oddities(dataset)]
    if notes:
        parts.append("Notes\n" + "\n".join(f"  - {note}" for note in notes))
    return "\n\n".join(parts)


def _facts(loaded: LoadedRatings) -> str:
    dataset = loaded.dataset
    users, items = len(dataset.user_ids), len(dataset.catalogue)
    rated = len(np.unique(dataset.items))
    cells = users * rated
    facts = {
        "source": dataset.source,
        "feedback": dataset.feedback.value,
        "scale": str(dataset.scale) if dataset.feedback is Feedback.EXPLICIT else "none",
        "times": _times(loaded),
        "ratings": f"{len(dataset):,}",
        "users": f"{users:,}",
        "items": f"{rated:,} rated" + (f", {items - rated:,} unrated" if items > rated else ""),
        "density": f"{len(dataset) / cells:.3%} of {cells:,} cells",
        "mean rating": f"{dataset.ratings.mean(dtype=np.float64):.3f}",
        "genres": f"{len(dataset.catalogue.genres)}",
    }
    for role, column in loaded.interpretation.columns.items():
        facts[f"column of {role}"] = column
    if dataset.attributes:
        facts["attributes"] = ", ".join(dataset.attributes)
    size = max(map(len, facts))
    return "\n".join(f"{name:<{size}}  {value}" for name, value in facts.items())


def _times(loaded: LoadedRatings) -> str:
    dataset = loaded.dataset
    if not dataset.has_timestamps:
        return "none"
    first, last = (
        _date(int(time)) for time in (dataset.timestamps.min(), dataset.timestamps.max())
    )
    form = loaded.interpretation.times
    return f"{first} to {last}" + (f", written as {form}" if form else "")


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:,} s after 1970"


def _activity(dataset: RatingsDataset) -> str:
    """Quantiles of the number of ratings per user and per rated item."""
    rows = []
    for name, index in (("user", dataset.users), ("item", dataset.items)):
        counts = np.bincount(index)
        counts = counts[counts > 0]
        rows.append([f"ratings per {name}", *_numbers(np.quantile(counts, _QUANTILES))])
    return render(["", "least", "25 %", "median", "75 %", "most"], rows, "<>>>>>")


def _numbers(values: Float64) -> list[str]:
    return [f"{value:,.0f}" for value in values.tolist()]


def _distribution(dataset: RatingsDataset) -> str:
    """How often each rating, or each range of ratings, occurs."""
    values, counts = np.unique(dataset.ratings, return_counts=True)
    labels = [f"{value:g}" for value in values.tolist()]
    if len(values) > _MOST_LISTED:
        counts, edges = np.histogram(dataset.ratings, bins=_RANGES)
        labels = [
            f"{low:g} to {high:g}"
            for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]
    most = int(counts.max())
    rows = [
        [label, f"{count:,}", f"{count / len(dataset):.1%}", "█" * round(_BAR * count / most)]
        for label, count in zip(labels, counts.tolist(), strict=True)
    ]
    title = "rating" if dataset.feedback is Feedback.EXPLICIT else "strength"
    return render([title, "count", "share", ""], rows, ">>><")


def _first_rows(dataset: RatingsDataset, count: int) -> str:
    rows = [
        [
            dataset.user_ids.id(int(dataset.users[row])),
            dataset.catalogue.items.id(int(dataset.items[row])),
            dataset.catalogue.title(int(dataset.items[row])),
            f"{dataset.ratings[row]:g}",
            _moment(int(dataset.timestamps[row])) if dataset.has_timestamps else "",
        ]
        for row in dataset.file_order[:count].tolist()
    ]
    return render(["user", "item", "title", "rating", "time"], rows, "lllrl")


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _oddities(dataset: RatingsDataset) -> list[str]:
    """Notes on what is unusual about the ratings or limits what can be learned from them."""
    notes = []
    if dataset.feedback is Feedback.IMPLICIT:
        notes.append("there are no ratings to predict: this is implicit feedback")
    if not dataset.has_timestamps:
        notes.append("without times, splits by time are not possible")
    elif int(dataset.timestamps.max()) > datetime.now(UTC).timestamp():
        notes.append("some times are in the future")
    elif bool((dataset.timestamps == dataset.timestamps[0]).all()):
        notes.append("all times are equal")
    for name, vocabulary in (("user", dataset.user_ids), ("item", dataset.catalogue.items)):
        ids = vocabulary.ids(range(len(vocabulary)))
        spaced = sum(text != text.strip() for text in ids)
        if spaced:
            notes.append(f"{spaced:,} {name} ids begin or end with a space")
        if all(_WHOLE_FLOAT.fullmatch(text) for text in ids):
            notes.append(f"all {name} ids are whole numbers with a decimal point, such as {ids[0]}")
    for name, index in (("users", dataset.users), ("items", dataset.items)):
        counts = np.bincount(index)
        few = int(((counts > 0) & (counts < _FEW_RATINGS)).sum())
        share = few / int((counts > 0).sum())
        if share > 0:
            notes.append(f"{few:,} {name} ({share:.1%}) have fewer than {_FEW_RATINGS} ratings")
    return notes
