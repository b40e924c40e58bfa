"""The metrics of the evaluation depend only on the ratings, not on how they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from marquee_trainer.commands.evaluate import metrics_json
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import Split
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.models.neural.mf import MF
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.train import train


def write_files(dataset: RatingsDataset, split: Split, folder: Path, seed: int) -> None:
    """Write training and test ratings in GroupLens format, with the rows in random order."""
    folder.mkdir()
    users = dataset.user_ids.ids(dataset.users)
    items = dataset.catalogue.items.ids(dataset.items)
    for name, rows in (("train", split.train), ("test", split.test)):
        lines = [
            f"{users[row]}\t{items[row]}\t{dataset.ratings[row]:g}\t{dataset.timestamps[row]}"
            for row in np.random.default_rng(seed).permutation(rows).tolist()
        ]
        (folder / name).write_text("\n".join(lines) + "\n")


def test_metrics_do_not_depend_on_the_order_of_rows(
    small_dataset: RatingsDataset, small_split: Split, tmp_path: Path
) -> None:
    """The same ratings in a different order of rows give identical metrics to the last digit."""
    found = []
    for seed in (1, 2):
        write_files(small_dataset, small_split, tmp_path / str(seed), seed)
        loaded = load_ratings(
            str(tmp_path / str(seed)),
            train_file="train",
            test_file=str(tmp_path / str(seed) / "test"),
        )
        assert loaded.split is not None
        models = (UserCF, ItemCF, EASE, lambda: MF().with_epochs(2))
        result = train(loaded.dataset, loaded.split, models, TrainingConfig(), Progress())
        found.append(metrics_json(result.evaluation))
    assert found[0] == found[1]
