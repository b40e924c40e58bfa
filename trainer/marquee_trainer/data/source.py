"""Where ratings come from: one flag."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from marquee_trainer.data.dataset import RatingsDataset, RatingsError
from marquee_trainer.data.grouplens import load_grouplens
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split
from marquee_trainer.data.tfds_source import load_tfds

SAMPLE = "sample"
_TFDS = "movielens/"
_TFDS_CACHE = "MARQUEE_TFDS_DIR"


@dataclass(frozen=True)
class Loaded:
    """Ratings, and their split when the source names one."""

    dataset: RatingsDataset
    split: Split | None = None


def load_ratings(
    source: str,
    *,
    manual_dir: str | None = None,
    train_file: str | None = None,
    test_file: str | None = None,
    seed: int = 0,
) -> Loaded:
    """Loads ratings.

    Args:
        source: `sample`, or `sample:users=…,items=…,ratings=…`; a TensorFlow Datasets config
            (`movielens/100k-ratings`); or the path of a GroupLens folder or zip file.
        manual_dir: Folder of archives that TensorFlow Datasets need not download.
        train_file: File of the training ratings, of a GroupLens folder.
        test_file: File of the test ratings, of a GroupLens folder.
        seed: Of a sample.

    Raises:
        RatingsError: The source is not known, or cannot be read.
    """
    if (train_file or test_file) and (source.startswith((SAMPLE, _TFDS))):
        raise RatingsError("training and test files go with a GroupLens folder")
    if source.split(":")[0] == SAMPLE:
        return Loaded(generate_sample(_sample_config(source), seed))
    if source.startswith(_TFDS):
        cache = Path(os.environ.get(_TFDS_CACHE, "~/.cache/marquee/tfds")).expanduser()
        return Loaded(load_tfds(source, Path(manual_dir) if manual_dir else None, cache))
    path = Path(source)
    if not path.exists():
        raise RatingsError(
            f"{source!r} is neither `sample`, nor a config movielens/…-ratings, nor a path"
        )
    return Loaded(*load_grouplens(path, train_file, test_file))


def _sample_config(source: str) -> SampleConfig:
    sizes: dict[str, int] = {}
    for part in filter(None, source.partition(":")[2].split(",")):
        name, _, value = part.partition("=")
        if name not in ("users", "items", "ratings") or not value.isdecimal():
            raise RatingsError(f"{part!r} is not users=…, items=… or ratings=…")
        sizes[name] = int(value)
    return SampleConfig(**sizes)
