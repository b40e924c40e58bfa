"""Reads MovieLens ratings through TensorFlow Datasets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_trainer.data.dataset import ItemDetails, RatingsDataset, RatingsError
from marquee_trainer.data.metadata import item_details

_BATCH = 8192
_NO_MORE_GENRES = -1

_Batch = Mapping[str, NDArray[Any]]


def load_tfds(config: str, manual_dir: Path | None, data_dir: Path) -> RatingsDataset:
    """Prepares a MovieLens ratings config, or takes it as prepared, and reads it.

    The file order is that of the prepared examples, which TensorFlow Datasets shuffles in a way
    that is the same everywhere.

    Args:
        config: For example `movielens/100k-ratings`.
        manual_dir: A folder that holds the archive already; None to download it.
        data_dir: Where TensorFlow Datasets keeps what it prepared.

    Raises:
        RatingsError: The config is not one of ratings, or cannot be prepared.
    """
    if not config.endswith("-ratings"):
        raise RatingsError(f"{config} is not a config of ratings, such as movielens/100k-ratings")
    builder = _prepared(config, manual_dir, data_dir)
    genres: list[str] = builder.info.features["movie_genres"].feature.names
    columns: dict[str, list[NDArray[Any]]] = {
        "user_id": [],
        "movie_id": [],
        "user_rating": [],
        "timestamp": [],
    }
    details: dict[str, ItemDetails] = {}
    for batch in _batches(builder, [*columns, "movie_title", "movie_genres"]):
        for key, parts in columns.items():
            text = batch[key].dtype == object
            parts.append(batch[key].astype(np.bytes_) if text else batch[key])
        _add_details(details, batch, genres)
    column = {key: np.concatenate(parts) for key, parts in columns.items()}
    return RatingsDataset.of(
        column["user_id"],
        column["movie_id"],
        column["user_rating"].astype(np.float32),
        column["timestamp"].astype(np.int64),
        details,
        f"tfds:{config}",
        lambda row: f"example {row + 1}",
    )


def _prepared(config: str, manual_dir: Path | None, data_dir: Path) -> Any:
    """The builder of a config, once it has prepared its examples."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Here rather than above: importing TensorFlow takes seconds.
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = tfds.builder(config, data_dir=data_dir)
    except Exception as error:  # its exceptions have no common base
        raise RatingsError(f"{config} is not known: {error}") from error
    if manual_dir is not None and not builder.is_prepared():
        # Without this it would try a download, which may not be wanted or possible.
        archive = builder.builder_config.download_url.rsplit("/", 1)[-1]
        if not (manual_dir / archive).is_file():
            raise RatingsError(f"there is no {archive} in {manual_dir}")
    download = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        builder.download_and_prepare(download_config=download)
    except Exception as error:  # neither have those of its downloads
        raise RatingsError(f"{config} cannot be prepared: {error}") from error
    return builder


def _batches(builder: Any, keys: Sequence[str]) -> Iterator[_Batch]:
    """Batches of some features of all examples, in order; lists are padded.

    The records are parsed a batch at a time, which is several times as fast as to have
    TensorFlow Datasets decode one example after another.
    """
    import tensorflow as tf

    spec = {key: builder.info.features.tf_example_spec[key] for key in keys}
    spec["movie_genres"] = spec["movie_genres"]._replace(default_value=_NO_MORE_GENRES)
    files = [os.fspath(path) for path in builder.info.splits["train"].filepaths]
    records = tf.data.TFRecordDataset(files).batch(_BATCH)
    yield from records.map(lambda batch: tf.io.parse_example(batch, spec)).as_numpy_iterator()


def _add_details(details: dict[str, ItemDetails], batch: _Batch, genres: Sequence[str]) -> None:
    """Adds the items that a batch is the first to show."""
    movies, places = np.unique(batch["movie_id"].astype(np.bytes_), return_index=True)
    for movie, place in zip(movies.tolist(), places.tolist(), strict=True):
        if (name := movie.decode()) not in details:
            labels = batch["movie_genres"][place].tolist()
            named = [genres[label] for label in labels if label != _NO_MORE_GENRES]
            details[name] = item_details(batch["movie_title"][place].decode(), named)
