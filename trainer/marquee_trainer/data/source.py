"""Loads ratings from the source given by `--data`."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from marquee_trainer.data.archives import ZipFiles, check_is_archive
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import OtherFormError, RatingsError
from marquee_trainer.data.files import WHOLE_ZIP, fetch
from marquee_trainer.data.grouplens import GROUPLENS_FILES, load_grouplens
from marquee_trainer.data.interpret import Interpretation, load_files, load_items, load_query
from marquee_trainer.data.items import RatedItems
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split
from marquee_trainer.data.sql import is_database
from marquee_trainer.data.tfds_source import load_tfds

_SAMPLE = re.compile(r"sample(?::(?P<sizes>.*))?")
_SAMPLE_SIZES = ("users", "items", "ratings")
_TFDS = re.compile(r"movielens/[\w.-]+")
_TFDS_CACHE = "MARQUEE_TFDS_DIR"
_DEFAULT_TFDS_CACHE = "~/.cache/marquee/tfds"
_MOVIELENS_ITEMS = RatedItems("movieId")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class LoadedRatings:
    """Ratings with their split and interpretation.

    Attributes:
        dataset: The ratings.
        split: The split, if the source defines one.
        interpretation: How the source was interpreted.
    """

    dataset: RatingsDataset
    split: Split | None = None
    interpretation: Interpretation = field(default_factory=lambda: Interpretation({}, "", ()))


def load_ratings(
    source: str,
    *,
    manual_dir: str | None = None,
    train_file: str | None = None,
    test_file: str | None = None,
    seed: int = 0,
    cache: Path | None = None,
    options: ReadOptions | None = None,
) -> LoadedRatings:
    """Loads ratings.

    Args:
        source: `sample`, or `sample:users=…,items=…,ratings=…`; a TensorFlow Datasets config such
            as `movielens/100k-ratings`; a GroupLens folder or zip file; the URL of a database; or
            a path, folder, glob or URL of CSV, TSV, JSON lines or Parquet files.
        manual_dir: Folder of archives that TensorFlow Datasets need not download.
        train_file: File of the training ratings, for a GroupLens folder.
        test_file: File of the test ratings, for a GroupLens folder.
        seed: Seed of a generated sample.
        cache: Folder where TensorFlow Datasets stores prepared examples; by default the value of
            the environment variable `MARQUEE_TFDS_DIR`, or `~/.cache/marquee/tfds`.
        options: How to read files and databases.

    Raises:
        RatingsError: The source is unknown, or cannot be read or interpreted.
    """
    options = options or ReadOptions()
    sample = _SAMPLE.fullmatch(source)
    tfds = _TFDS.fullmatch(source) if not Path(source).exists() else None
    has_split = bool(train_file or test_file)
    if (sample or tfds) and has_split:
        raise RatingsError("--train and --test require a GroupLens folder or zip file")
    if manual_dir and not tfds:
        raise RatingsError(
            "--manual-dir requires a TensorFlow Datasets config such as movielens/100k-ratings"
        )
    database = not (sample or tfds) and is_database(source)
    if options.query and not database:
        raise RatingsError("--query requires a database, such as sqlite:///ratings.db")
    if options.columns and (sample or tfds):
        raise RatingsError("--columns requires files or a database")
    if options.missing_values and (sample or tfds):
        raise RatingsError("--missing-values requires files or a database")
    if sample:
        return LoadedRatings(generate_sample(_sample_config(sample["sizes"] or ""), seed))
    if tfds:
        data_dir = cache or Path(os.environ.get(_TFDS_CACHE) or _DEFAULT_TFDS_CACHE).expanduser()
        archives = Path(manual_dir) if manual_dir else None
        metadata, item_notes = load_items(options, _MOVIELENS_ITEMS)
        dataset, notes = load_tfds(source, archives, data_dir, options, metadata)
        return LoadedRatings(dataset, None, Interpretation({}, "seconds", (*item_notes, *notes)))
    if database:
        dataset, interpretation = load_query(source, options)
        return LoadedRatings(dataset, None, interpretation)
    return _load_path(source, train_file, test_file, options)


def sample_config(source: str) -> SampleConfig | None:
    """The parameters of the sample that a source names; None if it is not a sample.

    Raises:
        RatingsError: The sizes of the sample are malformed.
    """
    sample = _SAMPLE.fullmatch(source)
    return None if sample is None else _sample_config(sample["sizes"] or "")


def _load_path(
    source: str, train_file: str | None, test_file: str | None, options: ReadOptions
) -> LoadedRatings:
    """Loads a path or URL in GroupLens' format or, if it has another format, as tables."""
    has_split = bool(train_file or test_file)
    if "://" in source:
        with tempfile.TemporaryDirectory(prefix="marquee-data-") as folder:
            copy = fetch(source, GROUPLENS_FILES, Path(folder))
            if copy is not None:
                return _load_path(str(copy), train_file, test_file, options)
        return _load_tables(source, options)
    path = Path(source).expanduser()
    if not path.exists() and not _GLOB.search(source):
        raise RatingsError(
            f"{source!r} is neither `sample`, nor a config movielens/…-ratings, nor an existing "
            f"path, nor a URL"
        )
    is_zip = path.is_file() and (path.suffix == ".zip" or zipfile.is_zipfile(path))
    if is_zip:
        check_is_archive(path)
    grouplens = _grouplens_path(path, is_zip)
    as_table = options.columns or options.missing_values
    if has_split or (grouplens is not None and not as_table):
        metadata, notes = load_items(options, _MOVIELENS_ITEMS)
        try:
            found = load_grouplens(grouplens or path, train_file, test_file, options, metadata)
        except OtherFormError:
            if has_split:
                raise
        else:
            interpretation = Interpretation({}, "seconds", (*notes, *found.notes))
            return LoadedRatings(found.dataset, found.split, interpretation)
    return _load_tables(f"{WHOLE_ZIP}{path}" if is_zip else source, options)


def _grouplens_path(path: Path, is_zip: bool) -> Path | None:
    """The folder or zip file whose files have the names of GroupLens' files; None for other paths.

    The path of a file of ratings with its file of movies next to it stands for their folder.
    """
    if is_zip:
        return path if ZipFiles(path).has_any(GROUPLENS_FILES) else None
    if path.is_dir():
        return path if any((path / name).is_file() for name in GROUPLENS_FILES) else None
    for ratings, movies in GROUPLENS_FILES.items():
        if (path.parent / ratings).is_file():
            is_ours = path.name == ratings and (path.parent / movies).is_file()
            return path.parent if is_ours else None
    return None


def _load_tables(source: str, options: ReadOptions) -> LoadedRatings:
    dataset, interpretation = load_files(source, options)
    return LoadedRatings(dataset, None, interpretation)


def _sample_config(text: str) -> SampleConfig:
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in _SAMPLE_SIZES or name in sizes or not re.fullmatch("[0-9]{1,9}", value):
            raise RatingsError(f"{part!r} is not one of users=…, items=… and ratings=…, each once")
        sizes[name] = int(value)
    return SampleConfig(**sizes)
