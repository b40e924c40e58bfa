"""Reads MovieLens ratings through TensorFlow Datasets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.scorers.quiet_tensorflow import import_tensorflow
from marquee_trainer.data.assembly import assemble
from marquee_trainer.data.chunked import ChunkedArray
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.grouplens_items import movielens_item
from marquee_trainer.data.ids import IdColumn
from marquee_trainer.data.item_metadata import MetadataById
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.rows import Rows

_BATCH = 8192
_NO_MORE_GENRES = -1

_Batch = Mapping[str, NDArray[Any]]


def load_tfds(
    config: str,
    manual_dir: Path | None,
    data_dir: Path,
    options: ReadOptions,
    own_metadata: MetadataById | None = None,
) -> tuple[RatingsDataset, list[str]]:
    """Reads a MovieLens ratings config, preparing it first if necessary.

    The source's order is that of the prepared examples, which TensorFlow Datasets shuffles in the
    same way on every machine.

    Args:
        config: The config, for example `movielens/100k-ratings`.
        manual_dir: Folder that holds the downloaded archive; None to download it.
        data_dir: Folder where TensorFlow Datasets stores the prepared examples.
        options: The scale, and the treatment of repeated ratings.
        own_metadata: Item metadata by item id that replaces that of the config.

    Returns:
        The data set, and notes for the user.

    Raises:
        RatingsError: The config is not a config of ratings, or it cannot be prepared.
    """
    if not config.endswith("-ratings"):
        raise RatingsError(f"{config} is not a config of ratings such as movielens/100k-ratings")
    builder = _prepared(config, manual_dir, data_dir)
    genres: list[str] = builder.info.features["movie_genres"].feature.names
    columns: dict[str, list[NDArray[Any]]] = {
        "user_id": [],
        "movie_id": [],
        "user_rating": [],
        "timestamp": [],
    }
    metadata: MetadataById = {}
    for batch in _batches(builder, [*columns, "movie_title", "movie_genres"]):
        for key, parts in columns.items():
            text = batch[key].dtype == object
            parts.append(batch[key].astype(np.bytes_) if text else batch[key])
        _add_metadata(metadata, batch, genres)
    column = {key: np.concatenate(parts) for key, parts in columns.items()}
    rows = Rows(
        IdColumn.of(column["user_id"]),
        IdColumn.of(column["movie_id"]),
        ChunkedArray([column["user_rating"].astype(np.float32)]),
        ChunkedArray([column["timestamp"].astype(np.int64)]),
        lambda row: f"example {row + 1}",
    )
    metadata = own_metadata or metadata
    return assemble(rows, metadata, f"tfds:{config}", options, keep_unrated=bool(metadata))


def _prepared(config: str, manual_dir: Path | None, data_dir: Path) -> Any:
    """Returns the builder of a config, with its examples prepared."""
    # Imported here because importing TensorFlow takes seconds.
    import_tensorflow()
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = tfds.builder(config, data_dir=data_dir)
    except Exception as error:  # the library's exceptions have no common base
        raise RatingsError(f"{config} is not known: {error}") from error
    if manual_dir is not None and not builder.is_prepared():
        # Without the archive the builder would try to download it.
        archive = builder.builder_config.download_url.rsplit("/", 1)[-1]
        if not (manual_dir / archive).is_file():
            raise RatingsError(f"there is no {archive} in {manual_dir}")
    download = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        builder.download_and_prepare(download_config=download)
    except Exception as error:  # as above
        raise RatingsError(f"{config} cannot be prepared: {error}") from error
    return builder


def _batches(builder: Any, keys: Sequence[str]) -> Iterator[_Batch]:
    """Yields batches of some features of all examples, in order; lists are padded.

    Parsing records in batches is several times faster than decoding one example at a time with
    TensorFlow Datasets.
    """
    import tensorflow as tf

    spec = {key: builder.info.features.tf_example_spec[key] for key in keys}
    spec["movie_genres"] = spec["movie_genres"]._replace(default_value=_NO_MORE_GENRES)
    files = [os.fspath(path) for path in builder.info.splits["train"].filepaths]
    records = tf.data.TFRecordDataset(files).batch(_BATCH)
    yield from records.map(lambda batch: tf.io.parse_example(batch, spec)).as_numpy_iterator()


def _add_metadata(metadata: MetadataById, batch: _Batch, genres: Sequence[str]) -> None:
    """Adds the metadata of items that were not in earlier batches."""
    movies, positions = np.unique(batch["movie_id"].astype(np.bytes_), return_index=True)
    for movie, position in zip(movies.tolist(), positions.tolist(), strict=True):
        if (name := movie.decode()) not in metadata:
            labels = batch["movie_genres"][position].tolist()
            named = [genres[label] for label in labels if label != _NO_MORE_GENRES]
            metadata[name] = movielens_item(batch["movie_title"][position].decode(), named)
