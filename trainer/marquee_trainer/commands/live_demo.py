"""`marquee demo --live`: users rate what they are shown, and the next release learns from that."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from marquee import AsyncClient, Status
from marquee_core.experiments.experiment import CONTROL, Arm
from marquee_core.experiments.outcome import Outcome, read_outcome
from marquee_core.experiments.store import STOPPED, ExperimentStore
from marquee_core.feedback.events import EntryType
from marquee_core.feedback.log import EventLog
from marquee_core.release.ensemble import POPULARITY
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Decision
from marquee_core.service_names import GATEWAY
from marquee_services.processes import PATIENCE, ServiceGroup, ServiceProcess, ServiceProcessError
from marquee_services.promotion import promote
from marquee_trainer.commands.demo import is_fully_served
from marquee_trainer.commands.gate_submission import gate_for
from marquee_trainer.commands.interrupt import InterruptHandler
from marquee_trainer.commands.live_users import SimulatedUsers
from marquee_trainer.commands.loading import load_with_feedback, open_store
from marquee_trainer.commands.selection import select_models
from marquee_trainer.commands.settings import DemoSettings, TrainSettings
from marquee_trainer.commands.train import train_all
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.sample import SampleTastes, generate_sample_with_tastes
from marquee_trainer.data.source import sample_config
from marquee_trainer.publishing.release import Judge, publish_trained
from marquee_trainer.training.config import TrainingConfig

ENSEMBLE = "ensemble"
# The slowest models to fit; an ensemble without them keeps the demo short.
_SLOW_MODELS = "deep_mf,residual_mf"
_TIMEOUT_S = 60.0
_WAIT_S = 120.0
_POLL_S = 0.05
_PROBES = 100
# Rounds of lists after which the experiment ends without a verdict.
_MOST_ROUNDS = 12
_LOG_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class _Demo:
    """State that the steps of the demo share.

    Attributes:
        settings: The demo's settings, as `marquee train` takes them.
        store: The release store.
        log: The URL of the feedback log.
        user_ids: The users of the sample.
    """

    settings: TrainSettings
    store: ReleaseStore
    log: str
    user_ids: list[str]


def run_live_demo(settings: DemoSettings) -> None:
    """Runs the demo.

    Raises:
        RatingsError: `--data` is not a sample.
        ConfigurationError: The file of hyperparameters cannot be read or names an unknown model.
        ClickException: A service did not start or stop cleanly, an event was lost, or the ensemble
            did not win.
    """
    config = sample_config(settings.data)
    if config is None:
        raise RatingsError("demo --live simulates users, so --data must be a sample")
    dataset, tastes = generate_sample_with_tastes(config, settings.seed)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marquee-demo-")))
        url, log = settings.store or str(work / "releases"), f"sqlite:///{work}/feedback.sqlite"
        shared = {
            name: getattr(settings, name)
            for name in ("data", "seed", "split", "test_fraction", "config", "models", "budget")
        }
        shared["exclude"] = settings.exclude or ("" if settings.models else _SLOW_MODELS)
        demo = _Demo(
            TrainSettings(**shared, store=url, feedback=log),
            open_store(url),
            log,
            [dataset.user_ids.id(user) for user in range(len(dataset.user_ids))],
        )
        click.echo(f"Training on {len(dataset):,} ratings of {len(demo.user_ids):,} users")
        first = _train(demo).release_id
        demo.store.promote(first)
        click.echo("Starting the CF service, the inference service and two gateways")
        group, second = _start_services(stack, url, log, work / "logs", settings.listen)
        addresses = [group.gateway.address, second.address]
        asyncio.run(_run_users(demo, tastes, addresses, first))
        click.echo("Stopping")
        statuses = [second.stop(), *group.stop().values()]
        if any(statuses):
            raise click.ClickException(f"services did not stop cleanly: exit statuses {statuses}")
    click.echo("Done.")


def _train(demo: _Demo, judge: Judge | None = None) -> Manifest:
    """Trains on the sample and the recorded feedback, and publishes without promoting.

    Args:
        demo: The shared state.
        judge: The gate; None for the first release, which cannot be compared with any other.
    """
    settings = demo.settings
    with InterruptHandler():
        loaded = load_with_feedback(settings)
        dataset, split = loaded.dataset, loaded.split
        trained = train_all(
            dataset, split, settings.seed, settings.config, select_models(settings), refit=True
        )
    config = TrainingConfig.for_dataset(dataset, settings.seed)
    return publish_trained(
        demo.store, dataset, split, trained, config, mark=loaded.mark, judge=judge
    )


def _gate(demo: _Demo, release: Manifest) -> None:
    """Promotes a release unless the gate refuses it; gives approval if the gate requires it.

    Raises:
        ClickException: The gate refuses the release.
    """
    click.echo("The gate compared it with the release in production")
    done = promote(demo.store, release.release_id, verdict=release.gate)
    if done.verdict is not None:
        click.echo("\n".join(f"  {line}" for line in done.verdict.lines()))
    if done.decision is Decision.REFUSE:
        raise click.ClickException("the gate refused the release")
    if done.decision is Decision.ASK:
        promote(demo.store, release.release_id, verdict=release.gate, approve=True)
        click.echo("  The gate requires approval, which the demo gives.")


def _start_services(
    stack: ExitStack, url: str, log: str, logs: Path, listen: str
) -> tuple[ServiceGroup, ServiceProcess]:
    """Starts the services with two gateways, and waits until they serve.

    Raises:
        ClickException: A service exited or did not serve in time; the message ends with its log.
    """
    feedback: dict[str, str | None] = {"feedback": log, **PATIENCE}
    try:
        group = stack.enter_context(ServiceGroup(url, logs, listen, gateway_options=feedback))
        options = {
            **feedback,
            "store": url,
            "cf-target": group.cf.address,
            "inference-target": group.inference.address,
        }
        second = ServiceProcess(GATEWAY, options, logs / "gateway-2.log")
        stack.callback(second.kill)
        second.wait_until_serving()
    except ServiceProcessError as error:
        raise click.ClickException(str(error)) from error
    return group, second


async def _run_users(demo: _Demo, tastes: SampleTastes, addresses: list[str], first: str) -> None:
    """Simulates users, retrains and runs an experiment while the gateways serve.

    Args:
        demo: The shared state.
        tastes: The users' opinions of items.
        addresses: The gateways.
        first: The release that they serve initially.

    Raises:
        ClickException: An event was lost, or the ensemble did not win.
    """
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(address, timeout=_TIMEOUT_S))
            for address in addresses
        ]
        users = SimulatedUsers(clients, tastes, demo.settings.seed)
        probed, others = demo.user_ids[:_PROBES], demo.user_ids[_PROBES:]
        await _until(clients, lambda state: is_fully_served(state, first))
        click.echo("Users rate what they are shown")
        started = time.perf_counter()
        delays, _ = await asyncio.gather(users.measure_delays(probed), users.rate_lists(others))
        rate = len(users.acknowledged) / (time.perf_counter() - started)
        p50, p99 = np.quantile(delays, [0.5, 0.99]) * 1000.0
        click.echo(
            f"  {len(users.acknowledged):,} events, {rate:,.0f} per second; from an event to its "
            f"effect in the other gateway: p50 {p50:.0f} ms, p99 {p99:.0f} ms"
        )
        click.echo("Retraining on the sample and the recorded feedback")
        # In a thread, so that the connections to the gateways stay alive.
        candidate = await asyncio.to_thread(_train, demo, gate_for(demo.store))
        await asyncio.to_thread(_gate, demo, candidate)
        await _until(clients, lambda state: is_fully_served(state, candidate.release_id))
        click.echo(
            f"  release {candidate.release_id} holds {candidate.data.rating_count:,} ratings, and "
            "both gateways serve it"
        )
        outcome = await _compare(demo, users, clients, candidate.release_id)
        lost, doubled = _check_log(demo.log, users.acknowledged)
        click.echo(
            f"Events: {len(users.acknowledged):,} acknowledged, {lost} lost, {doubled} doubled; "
            f"{users.degraded} degraded answers"
        )
    if lost or doubled:
        raise click.ClickException("acknowledged events were lost or doubled")
    if outcome.winner != ENSEMBLE:
        raise click.ClickException("the ensemble did not win")


async def _compare(
    demo: _Demo, users: SimulatedUsers, clients: list[AsyncClient], release_id: str
) -> Outcome:
    """Runs an experiment of the ensemble against popularity until it has a winner."""
    experiments = ExperimentStore(demo.store)
    with EventLog(demo.log, _LOG_TIMEOUT_S) as log:
        experiment = experiments.create(
            f"demo-{release_id.rpartition('-')[2]}",
            [
                Arm(CONTROL, release_id, 50.0, {POPULARITY: 1.0}),
                Arm(ENSEMBLE, release_id, 50.0),
            ],
            log_position=log.position(),
        )
        await _until(clients, lambda state: _runs(state, experiment.name))
        click.echo(f"Experiment {experiment.name}: the ensemble against popularity, 50 % each")
        rounds, outcome = 0, None
        while rounds < _MOST_ROUNDS and (outcome is None or not outcome.winner):
            rounds += 1
            await users.rate_lists(demo.user_ids)
            await _until(
                clients,
                lambda state: state.experiment is None or not state.experiment.pending_list_count,
            )
            outcome = await asyncio.to_thread(read_outcome, experiment, log)
    assert outcome is not None  # noqa: S101 - there is at least one round
    experiments.end(experiment.name, STOPPED)
    for arm in outcome.arms:
        shown = arm.metrics[experiment.metric].mean
        click.echo(
            f"  {arm.name if arm.name == ENSEMBLE else POPULARITY}: {arm.users:,} users, "
            f"{arm.lists:,} lists, {shown.estimate:.2f} likes per list "
            f"({shown.low:.2f} to {shown.high:.2f}), mean stars "
            f"{arm.metrics['stars'].mean.estimate:.2f}"
        )
    verdict = outcome.verdict
    difference = outcome.arms[-1].metrics[experiment.metric].difference
    if outcome.winner == ENSEMBLE and difference is not None:
        verdict = (
            f"the ensemble wins: {difference.estimate:+.2f} likes per list against {POPULARITY} "
            f"({difference.low:+.2f} to {difference.high:+.2f})"
        )
    click.echo(f"  {verdict}, after {rounds} round{'s' if rounds > 1 else ''} of lists")
    return outcome


def _runs(state: Status, experiment: str) -> bool:
    found = state.experiment
    return (
        found is not None
        and found.experiment == experiment
        and not any(arm.unavailable_reason for arm in found.arms)
    )


async def _until(clients: list[AsyncClient], condition: Callable[[Status], bool]) -> None:
    """Waits until a condition holds for the status of every gateway.

    Raises:
        ClickException: It did not hold in time.
    """
    deadline = time.monotonic() + _WAIT_S
    for client in clients:
        while not condition(state := await client.status()):
            if time.monotonic() > deadline:
                raise click.ClickException(
                    f"a gateway did not follow within {_WAIT_S:.0f} s: "
                    f"{state.pending_release_reason or state.experiment}"
                )
            await asyncio.sleep(_POLL_S)


def _check_log(url: str, acknowledged: set[tuple[str, str]]) -> tuple[int, int]:
    """Counts acknowledged events that the log lacks, and events that it holds more than once."""
    with EventLog(url, _LOG_TIMEOUT_S) as log:
        found = Counter(
            (entry.event.user_id, entry.event.event_id)
            for entry in log.entries()
            if entry.type is EntryType.EVENT and entry.event is not None
        )
    return len(acknowledged - found.keys()), sum(count > 1 for count in found.values())
