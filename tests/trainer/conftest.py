"""A small sample with quickly trained models, shared by several test files."""

from __future__ import annotations

import pytest

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import Split, random_split
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.results import TrainingResult
from marquee_trainer.training.train import train


@pytest.fixture(scope="session")
def small_dataset() -> RatingsDataset:
    """A generated sample of 150 users and 120 items."""
    return generate_sample(SampleConfig(users=150, items=120, ratings=7000), seed=1)


@pytest.fixture(scope="session")
def small_split(small_dataset: RatingsDataset) -> Split:
    """A random 80/20 split of the sample."""
    return random_split(small_dataset.file_order, 0.2, 0)


@pytest.fixture(scope="session")
def small_trained(small_dataset: RatingsDataset, small_split: Split) -> TrainingResult:
    """User- and item-based CF and EASE, trained, blended and evaluated on the sample."""
    models = (UserCF, ItemCF, EASE)
    return train(small_dataset, small_split, models, TrainingConfig(), Progress())
