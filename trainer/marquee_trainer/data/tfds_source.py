"""Reads MovieLens ratings through TensorFlow Datasets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from marquee_trainer.data.dataset import ItemDetails, RatingsDataset, RatingsError
from marquee_trainer.data.titles import split_title

_BATCH = 8192
_NO_GENRES = "(no genres listed)"


def load_tfds(config: str, manual_dir: Path | None, data_dir: Path) -> RatingsDataset:
    """Prepares a MovieLens ratings config, or takes it as prepared, and reads it.

    Args:
        config: For example `movielens/100k-ratings`.
        manual_dir: A folder that holds the archive already; None to download it.
        data_dir: Where TensorFlow Datasets keeps what it prepared.

    Raises:
        RatingsError: The config is not one of ratings, or cannot be prepared.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Here rather than above: importing TensorFlow takes seconds.
    import tensorflow as tf
    import tensorflow_datasets as tfds

    if not config.endswith("-ratings"):
        raise RatingsError(f"{config} is not a config of ratings, such as movielens/100k-ratings")
    if manual_dir is not None and not manual_dir.is_dir():
        raise RatingsError(f"there is no folder {manual_dir}")
    try:
        builder = tfds.builder(config, data_dir=data_dir)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
        )
    except Exception as error:  # the library raises what its downloads raise
        raise RatingsError(f"{config} cannot be prepared: {error}") from error
    genre_names = builder.info.features["movie_genres"].feature.names
    keys = ("user_id", "movie_id", "user_rating", "timestamp", "movie_title", "movie_genres")
    batches = list(
        builder.as_dataset(split="train", shuffle_files=False)
        .map(lambda row: {key: row[key] for key in keys})
        .padded_batch(
            _BATCH,
            padding_values={
                key: tf.constant(-1, tf.int64) if key == "movie_genres" else None for key in keys
            },
        )
        .as_numpy_iterator()
    )
    column = {key: np.concatenate([batch[key] for batch in batches]) for key in keys[:4]}
    details: dict[str, ItemDetails] = {}
    for batch in batches:
        rows = zip(batch["movie_id"], batch["movie_title"], batch["movie_genres"], strict=True)
        for movie, title, genres in rows:
            if (name := movie.decode()) not in details:
                plain, year = split_title(title.decode())
                labels = (genre_names[genre] for genre in genres if genre >= 0)
                kept = tuple(g for g in labels if g not in (_NO_GENRES, "unknown"))
                details[name] = ItemDetails(plain, year, kept)
    return RatingsDataset.of(
        column["user_id"].astype(np.bytes_),
        column["movie_id"].astype(np.bytes_),
        column["user_rating"].astype(np.float32),
        column["timestamp"].astype(np.int64),
        details,
        f"tfds:{config}",
    )
