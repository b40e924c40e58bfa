"""`marquee train`: trains models, evaluates them, refits them and publishes a release."""

from __future__ import annotations

import time

import click

from marquee_core.release.lease import Lease
from marquee_trainer.commands.fit_workers import FitWorkers, without_fit_steps
from marquee_trainer.commands.gate_submission import gate_for, promote_through_gate
from marquee_trainer.commands.input_report import check_inputs
from marquee_trainer.commands.interrupt import set_outcome
from marquee_trainer.commands.loading import load_with_feedback, open_store
from marquee_trainer.commands.progress import ProgressBar, training_plan
from marquee_trainer.commands.selection import ModelSelection, select_models
from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.commands.tables import metrics_table
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import model_factories
from marquee_trainer.models.costs import measured_slowdown
from marquee_trainer.models.coverage import partial_coverage
from marquee_trainer.models.model import Model, can_learn_from
from marquee_trainer.publishing.config import PrecomputeConfig, RetrievalConfig
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.budget import Budget
from marquee_trainer.training.checkpoints import Checkpoints
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.plan import TrainingPlan
from marquee_trainer.training.preparation import check_sizes
from marquee_trainer.training.refit import refit_on_all_ratings
from marquee_trainer.training.results import TrainingResult
from marquee_trainer.training.train import train

# The share of the time left after training that precomputing pages may take; the gate and the store
# need time too.
_PAGES_SHARE = 0.75


def run_training(settings: TrainSettings, lease: Lease) -> None:
    """Trains, prints the metrics, publishes a release and, if configured, promotes it.

    Args:
        settings: The settings.
        lease: The trainer lease of the store.

    Raises:
        RatingsError: The ratings cannot be read, or there are too few of them.
        ConfigurationError: The file of hyperparameters cannot be read, or it or the selection of
            models names an unknown model.
        ArtifactError: A model's parameters are not finite, so it cannot be published.
        LeaseHeldError: The lease was lost; nothing is published.
        Exit: The ratings failed a check, or the gate refused the release or requires approval.
        OSError: The store cannot be written to.
    """
    started = time.monotonic()
    selection = select_models(settings)
    store = open_store(settings.store, settings.signing_key)
    checkpoints = Checkpoints(
        settings.checkpoint_folder,
        settings.resume,
        report=lambda note: click.echo(f"  {note}", err=True),
    )
    loaded = load_with_feedback(settings, checkpoints.mark)
    if loaded.mark is not None:
        checkpoints.mark = loaded.mark
    dataset, split = loaded.dataset, loaded.split
    check_inputs(settings, store, dataset)
    trained = train_all(
        dataset,
        split,
        settings.seed,
        settings.config,
        selection.after(time.monotonic() - started),
        settings.refit,
        checkpoints,
        FitWorkers.from_settings(settings),
    )
    click.echo(
        f"{split.description}: {len(split.train):,} training ratings, {len(split.test):,} test"
    )
    click.echo(metrics_table(trained.evaluation))
    lease.check()
    left_s = selection.after(time.monotonic() - started).seconds
    pages_s = None if left_s is None else _PAGES_SHARE * left_s
    if settings.fold_on_request:
        trained = trained.folding_on_request()
    with ProgressBar() as bar:
        progress = bar.progress()
        progress.on_step("publish", 0)
        judge = None
        if settings.gate:
            require_approval = settings.require_approval and settings.promote
            judge = gate_for(
                store, require_approval, lease, lambda: progress.on_step("judge by the gate", 0)
            )
        manifest = publish_trained(
            store,
            dataset,
            split,
            trained,
            TrainingConfig.for_dataset(dataset, settings.seed),
            RetrievalConfig(settings.retrieval),
            PrecomputeConfig(settings.precomputed_users, seconds=pages_s),
            loaded.mark,
            judge,
            progress.on_users,
        )
    checkpoints.remove()
    set_outcome(f"Release {manifest.release_id} was published.")
    cut = manifest.evaluation.get("first_pages")
    if cut is not None:
        click.echo(
            f"  budget: first pages are precomputed for {cut['users']:,} of the {cut['wanted']:,} "
            "most active users",
            err=True,
        )
    fitted_on = "refitted on all" if settings.refit else "fitted on the"
    kind = "ratings" if settings.refit else "training ratings"
    click.echo(
        f"published {manifest.release_id}, {fitted_on} {manifest.data.rating_count:,} {kind}"
    )
    if not settings.promote:
        if manifest.gate is not None:
            click.echo("\n".join(manifest.gate.lines()))
    else:
        promote_through_gate(store, manifest, settings.require_approval, settings.metrics_file)


def train_all(
    dataset: RatingsDataset,
    split: Split,
    seed: int,
    config: str = "",
    selection: ModelSelection | None = None,
    refit: bool = False,
    checkpoints: Checkpoints | None = None,
    workers: FitWorkers | None = None,
) -> TrainingResult:
    """Trains models with their tuned hyperparameters, showing the progress on stderr.

    Args:
        dataset: The ratings.
        split: Their training and test part.
        seed: Seed for all randomness.
        config: A file that `marquee tune` wrote; empty for the file in this package that was tuned
            on data of the most similar size, adapted to the size of this data.
        selection: The models to train and the time limit; None for all models and no limit.
        refit: Whether to fit the models on all ratings after the evaluation, for a release.
        checkpoints: Saves fits and restores those of an earlier run; None for neither.
        workers: Worker processes that fit the models first; None to fit them in this process.

    Raises:
        ConfigurationError: The file cannot be read or names an unknown model.
        RatingsError: There are too few ratings, or none of the models can learn from them.
        TaskError: A worker process that fits a model died repeatedly.
    """
    selection = selection or ModelSelection()
    models = model_factories(len(split.train), config, selection.names)
    training = TrainingConfig.for_dataset(dataset, seed)
    slowdown = measured_slowdown()
    budget = None
    if selection.seconds is not None:
        budget = Budget(
            selection.seconds,
            lambda note: click.echo(f"  {note}", err=True),
            refit=refit,
            slowdown=slowdown,
        )
    held_out = round(training.validation_share(split.kind) * len(split.train))
    made: list[Model] = [make_model() for make_model in models]
    planned = [model for model in made if can_learn_from(model.output, dataset.feedback)]
    names = [model.name for model in planned]
    if dataset.feedback is Feedback.IMPLICIT:
        left_out = ", ".join(model.name for model in made if model.name not in names)
        note = f"; left out: {left_out}, which predict ratings" if left_out else ""
        click.echo(f"  implicit feedback: only rankers are trained{note}", err=True)
    if workers is not None:
        todo = TrainingPlan(dataset.of_modelled_items(), split, training, refit)
        check_sizes(todo.dataset, split, todo.validation_split)
        checkpoints = workers.fit(todo, planned)
    first = [model.name for model in budget.order(planned)] if budget is not None else names
    all_ratings = len(split.train) + len(split.test) if refit else 0
    if workers is not None:
        first, names, all_ratings = [], [], 0  # The workers have fitted everything.
    plan = training_plan(first, held_out, len(split.train), all_ratings, refit_order=names)
    with ProgressBar(plan, slowdown, selection.seconds) as bar:
        progress = bar.progress()
        if workers is not None:
            progress = without_fit_steps(progress)
        trained = train(dataset, split, models, training, progress, budget, checkpoints)
        if refit:
            trained = refit_on_all_ratings(dataset, split, trained, training, progress, checkpoints)
    coverages = partial_coverage(trained.served_models, trained.served_data.matrix)
    for name, coverage in coverages.items():
        click.echo(f"  {name}: {coverage}", err=True)
    if len(trained.evaluation.tested) < len(split.test):
        click.echo(
            f"  {len(trained.evaluation.tested):,} of {len(split.test):,} test ratings were "
            "evaluated: those of a random sample of the users",
            err=True,
        )
    return trained
