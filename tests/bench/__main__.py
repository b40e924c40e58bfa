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
from bench.report import MET, SHORT, Table, machine, write_results
from bench.sections import (
    batch,
    computed,
    concurrency,
    core,
    footprint,
    inference,
    recommend,
    replicas,
)

_SEED = 0
# Few at once, so that none is degraded on a slow machine; what was all the same comes again.
_GENTLE, _PRIMINGS = 8, 2
SECTIONS = (
    "recommend",
    "first-pages",
    "computed",
    "concurrency",
    "batch",
    "inference",
    "footprint",
    "replicas",
    "core",
    "retrieval",
)


def run(
    config: BenchConfig, folder: Path, wanted: Sequence[str], on_step: Callable[[str], None]
) -> list[Table]:
    """Measures.

    Args:
        config: How much.
        folder: Where releases, logs and results go.
        wanted: The sections, by name.
        on_step: Called with the name of each step as it begins.

    Raises:
        CalledProcessError: The release could not be made.
        RuntimeError: A process ended, or did not serve.
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
            if "recommend" in wanted:
                tables["recommend"] = recommend.measure(context, echo, size)
            if "first-pages" in wanted:
                tables["first-pages"] = computed.measure_first_pages(context, echo, size)
            if "computed" in wanted:
                tables["computed"] = computed.measure(context, echo, size)
            if "concurrency" in wanted:
                tables["concurrency"] = concurrency.measure(context, echo)
        for name, section in (
            ("batch", batch),
            ("inference", inference),
            ("footprint", footprint),
            ("replicas", replicas),
        ):
            if name in wanted:
                tables[name] = section.measure(context)
    if "core" in wanted:
        tables["core"] = core.measure(context)
    if "retrieval" in wanted:
        tables["retrieval"] = core.measure_retrieval(context)
    return list(tables.values())


def prime(context: Context) -> None:
    """Asks for every user, so that the gateway keeps their answers, as it does of users who return.

    What users cost who do not is measured by `bench.sections.computed`.
    """
    context.on_step("every user once")
    plan = context.plan(_GENTLE, 0.0)
    for _ in range(_PRIMINGS):
        context.recommend(replace(plan, calls=len(context.user_ids)))
    context.take_notes()


class Steps:
    """Shows the step at hand; without a terminal, nothing."""

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
@click.option("--quick", is_flag=True, help="Measure less, on a small sample.")
@click.option("--data", default="", help="Ratings, as `marquee train --data` takes them.")
@click.option("--folder", default="build/bench", help="Where releases, logs and results go.")
@click.option("--rounds", type=click.IntRange(min=1), default=None, help="Rounds.")
@click.option("--only", multiple=True, type=click.Choice(SECTIONS), help="Some sections only.")
def main(quick: bool, data: str, folder: str, rounds: int | None, only: tuple[str, ...]) -> None:
    """Measures what serving costs, and compares it with the targets."""
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
        tables = run(config, target, only or SECTIONS, steps.show)
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
        f"\n{verdicts.count(MET)} targets met, {verdicts.count(SHORT)} short; "
        f"{seconds:.0f} s; {target}/results.json"
    )


if __name__ == "__main__":
    main()
