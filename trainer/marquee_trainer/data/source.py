"""Where ratings come from: one flag."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from marquee_trainer.data.dataset import RatingsDataset, RatingsError
from marquee_trainer.data.grouplens import load_grouplens
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split
from marquee_trainer.data.tfds_source import load_tfds

_SAMPLE = re.compile(r"sample(?::(?P<sizes>.*))?")
_SAMPLE_SIZES = ("users", "items", "ratings")
_TFDS = re.compile(r"movielens/[\w.-]+")
_TFDS_CACHE = "MARQUEE_TFDS_DIR"
_DEFAULT_TFDS_CACHE = "~/.cache/marquee/tfds"


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
    cache: Path | None = None,
) -> Loaded:
    """Loads ratings.

    Args:
        source: `sample`, or `sample:users=…,items=…,ratings=…`; a TensorFlow Datasets config
            (`movielens/100k-ratings`); or the path of a GroupLens folder or zip file.
        manual_dir: Folder of archives that TensorFlow Datasets need not download.
        train_file: File of the training ratings, of a GroupLens folder.
        test_file: File of the test ratings, of a GroupLens folder.
        seed: Of a sample.
        cache: Where TensorFlow Datasets keeps what it prepared; by default the environment's
            `MARQUEE_TFDS_DIR`, else `~/.cache/marquee/tfds`.

    Raises:
        RatingsError: The source is not known, or cannot be read.
    """
    sample = _SAMPLE.fullmatch(source)
    tfds = _TFDS.fullmatch(source)
    if (sample or tfds) and (train_file or test_file):
        raise RatingsError("training and test files go with a GroupLens folder")
    if manual_dir and not tfds:
        raise RatingsError("a folder of archives goes with a config movielens/…-ratings")
    if sample:
        return Loaded(generate_sample(_sample_config(sample["sizes"] or ""), seed))
    if tfds:
        data_dir = cache or Path(os.environ.get(_TFDS_CACHE) or _DEFAULT_TFDS_CACHE).expanduser()
        return Loaded(load_tfds(source, Path(manual_dir) if manual_dir else None, data_dir))
    path = Path(source).expanduser()
    if not path.exists():
        raise RatingsError(
            f"{source!r} is neither `sample`, nor a config movielens/…-ratings, nor a path"
        )
    return Loaded(*load_grouplens(path, train_file, test_file))


def _sample_config(text: str) -> SampleConfig:
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in _SAMPLE_SIZES or name in sizes or not re.fullmatch("[0-9]{1,9}", value):
            raise RatingsError(f"{part!r} is not one of users=…, items=… and ratings=…, each once")
        sizes[name] = int(value)
    return SampleConfig(**sizes)
