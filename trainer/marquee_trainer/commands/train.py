"""`marquee train`: trains all models, evaluates them and publishes a release."""

from __future__ import annotations

import click

from marquee_trainer.commands.interrupt import set_outcome
from marquee_trainer.commands.loading import load_and_split, open_store
from marquee_trainer.commands.progress import ProgressBar, training_plan
from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.commands.tables import metrics_table
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import models_for
from marquee_trainer.publishing.config import PrecomputeConfig, RetrievalConfig
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.results import Trained
from marquee_trainer.training.train import train


def run_training(settings: TrainSettings) -> None:
    """Trains, prints the metrics, publishes a release and, if so configured, promotes it.

    Raises:
        RatingsError: The ratings cannot be read.
        ConfigurationError: The file of hyperparameters cannot be read or names an unknown model.
        ArtifactError: A model's parameters are not finite, so it cannot be published.
        OSError: The store cannot be written to.
    """
    store = open_store(settings.store)
    dataset, split = load_and_split(settings)
    trained = train_all(dataset, split, settings.seed, settings.config)
    click.echo(metrics_table(trained.evaluation))
    manifest = publish_trained(
        store,
        dataset,
        split,
        trained,
        TrainingConfig(seed=settings.seed),
        RetrievalConfig(settings.retrieval),
        PrecomputeConfig(settings.precomputed_users),
    )
    set_outcome(f"Release {manifest.release_id} was published.")
    click.echo(f"published {manifest.release_id}")
    if settings.promote:
        store.promote(manifest.release_id)
        click.echo("promoted")


def train_all(dataset: RatingsDataset, split: Split, seed: int, config: str = "") -> Trained:
    """Trains all models with their tuned hyperparameters, and shows the progress on stderr.

    Args:
        dataset: The ratings.
        split: Their training and test part.
        seed: Seed for all randomness.
        config: A file that `marquee tune` wrote; empty for the file in this package that was tuned
            on data of about the same size, if there is one.

    Raises:
        ConfigurationError: The file cannot be read or names an unknown model.
    """
    models = models_for(len(split.train), config)
    training = TrainingConfig(seed=seed)
    held_out = round(training.validation_share(split.kind) * len(split.train))
    plan = training_plan([make_model().name for make_model in models], held_out, len(split.train))
    with ProgressBar(plan) as bar:
        return train(dataset, split, models, training, bar.progress())
