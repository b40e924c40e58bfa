"""Runs the benchmark: `make bench`, or `make bench QUICK=1`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
from tqdm import tqdm

from bench.config import QUICK, BenchConfig
from bench.context import Context, pick_users
from bench.generator import Generator
from bench.plots import plot_concurrency
from bench.processes import EchoServer, Services
from bench.release import ReleaseConfig, cached_release
from bench.report import MET, MISSED, Table, machine, write_results
from bench.sections import (
    batch,
    computed,
    concurrency,
    core,
    footprint,
    inference,
    large,
    lists,
    recommend,
    replicas,
    tracing,
)
from termination import interrupt_on_sigterm

_SEED = 0
# With few calls in flight, answers are hardly ever degraded, even on a slow machine. A degraded
# answer is not cached, but the second round caches its replacement.
_PRIMING_IN_FLIGHT, _PRIMING_ROUNDS = 8, 2
SECTIONS = (
    "recommend",
    "precomputed",
    "computed",
    "concurrency",
    "batch",
    "lists",
    "inference",
    "footprint",
    "replicas",
    "tracing",
    "core",
    "retrieval",
    "catalogues",
)
# Sections that are measured only with `--only`, because they take long and much disk space.
_ON_REQUEST = ("large",)
_ALIASES = {"first-pages": "precomputed"}


def run(
    config: BenchConfig, folder: Path, sections: Sequence[str], on_step: Callable[[str], None]
) -> list[Table]:
    """Publishes a release, starts the services, and measures the chosen sections.

    Args:
        config: Size and duration of the measurements.
        folder: Folder for releases and logs.
        sections: Names of the sections to measure.
        on_step: Called with the name of each step when it starts.

    Returns:
        A table for each section.

    Raises:
        CalledProcessError: The release could not be trained and published.
        RuntimeError: A process ended unexpectedly, or did not serve in time.
    """
    store, manifest = cached_release(
        ReleaseConfig(config.data), folder, lambda step: on_step(f"release: {step}")
    )
    users = pick_users(store, manifest, config.users, _SEED)
    on_step("start the services")
    tables = {}
    with (
        Services(store.url, folder / "logs") as services,
        Generator() as generator,
    ):
        context = Context(config, store, manifest, folder, generator, services, users, on_step)
        prime(context)
        size = recommend.answer_bytes(context)
        with EchoServer(size) as echo:
            if "recommend" in sections:
                tables["recommend"] = recommend.measure(context, echo, size)
            if "precomputed" in sections:
                tables["precomputed"] = computed.measure_precomputed(context, echo, size)
            if "computed" in sections:
                tables["computed"] = computed.measure(context, echo, size)
            if "concurrency" in sections:
                tables["concurrency"] = concurrency.measure(context, echo)
        for name, section in (
            ("batch", batch),
            ("lists", lists),
            ("inference", inference),
            ("footprint", footprint),
            ("replicas", replicas),
            ("tracing", tracing),
            ("large", large),
        ):
            if name in sections:
                tables[name] = section.measure(context)
    if "core" in sections:
        tables["core"] = core.measure(context)
    if "retrieval" in sections:
        tables["retrieval"] = core.measure_retrieval(context)
    if "catalogues" in sections:
        tables["catalogues"] = core.measure_catalogues(context)
    return list(tables.values())


def prime(context: Context) -> None:
    """Requests recommendations for every user, so that the gateway caches the answers.

    `bench.sections.computed` measures answers that are not cached.
    """
    context.on_step("fill the gateway's cache")
    plan = context.plan(_PRIMING_IN_FLIGHT, 0.0)
    for _ in range(_PRIMING_ROUNDS):
        context.recommend(replace(plan, calls=len(context.user_ids)))
    context.take_notes()


class Steps:
    """Shows the current step if stderr is a terminal."""

    def __init__(self) -> None:
        self._bar = tqdm(disable=not sys.stderr.isatty(), bar_format="{elapsed} {desc}")

    def show(self, name: str) -> None:
        """Shows a step."""
        self._bar.set_description_str(name)
        self._bar.update()

    def close(self) -> None:
        """Clears the line."""
        self._bar.close()


@click.command()
@click.option("--quick", is_flag=True, help="Measure for a shorter time, on a small sample.")
@click.option("--data", default="", help="Ratings, as for `marquee train --data`.")
@click.option("--folder", default="build/bench", help="Folder for releases, logs and results.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=None, help="Rounds of each comparison."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*SECTIONS, *_ON_REQUEST, *_ALIASES]),
    help="Measure this section only; may be repeated.",
)
def main(quick: bool, data: str, folder: str, rounds: int | None, only: tuple[str, ...]) -> None:
    """Measures the services and compares the results with the targets."""
    start = time.monotonic()
    config = QUICK if quick else BenchConfig()
    config = replace(config, data=data or config.data)
    if rounds:
        config = replace(config, rounds=rounds, sweep_rounds=rounds, core_rounds=rounds)
    head = {"machine": machine(), "config": asdict(config)}
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    steps = Steps()
    try:
        sections = [_ALIASES.get(name, name) for name in only] or SECTIONS
        tables = run(config, target, sections, steps.show)
    finally:
        steps.close()
    for table in tables:
        click.echo(table.text())
        if table.series:
            plot_concurrency(table.series, target)
    seconds = time.monotonic() - start
    write_results(target / "results.json", {**head, "seconds": seconds}, tables)
    verdicts = [row.verdict for table in tables for row in table.rows]
    click.echo(
        f"\n{verdicts.count(MET)} targets met, {verdicts.count(MISSED)} missed; "
        f"{seconds:.0f} s; {target}/results.json"
    )


if __name__ == "__main__":
    interrupt_on_sigterm()
    main()
