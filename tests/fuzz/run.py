"""Runs the targets, saves their progress, and stores the inputs that are findings."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fuzz.targets import Target

# An input that takes more time or memory than this is a finding.
_MAX_SECONDS = 20.0
_MAX_BYTES = 2 * 1024**3
_CHUNK = 200


class InputTimeout(Exception):
    """A parser took too long for an input."""


@dataclass
class Progress:
    """The progress of one process with one target.

    Attributes:
        done: Number of inputs parsed.
        refused: Number of inputs for which the parser raised its own error.
        findings: Numbers of the inputs that are findings.
    """

    done: int = 0
    refused: int = 0
    findings: list[int] = field(default_factory=list)


def make_input(target: Target, seed: int, number: int) -> bytes:
    """Makes the input of a target that has the given number."""
    rng = random.Random(f"{seed} {target.name} {number}")  # noqa: S311 - not for cryptography
    return target.mutate(rng, target.seeds)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limits the memory that the process may allocate beyond its current size."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    most = pages * os.sysconf("SC_PAGE_SIZE") + _MAX_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def fuzz_target(
    target: Target, seed: int, numbers: Iterator[int] | range, progress: Progress, findings: Path
) -> None:
    """Feeds inputs to a target.

    Args:
        target: The target.
        seed: Seed of the inputs.
        numbers: Numbers of the inputs.
        progress: The progress so far, updated in place.
        findings: Folder for the inputs that are findings, with their tracebacks.
    """

    def on_alarm(_number: int, _frame: object) -> None:
        raise InputTimeout(f"more than {_MAX_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        for number in numbers:
            data = make_input(target, seed, number)
            signal.setitimer(signal.ITIMER_REAL, _MAX_SECONDS)
            try:
                target.run(data)
            except target.errors:
                progress.refused += 1
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # A panic of Polars is not an Exception.
                signal.setitimer(signal.ITIMER_REAL, 0)
                progress.findings.append(number)
                findings.mkdir(parents=True, exist_ok=True)
                stem = findings / f"{target.name.replace(' ', '-')}-{number}"
                stem.with_suffix(".input").write_bytes(data)
                stem.with_suffix(".txt").write_text(traceback.format_exc())
            progress.done += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    targets: Sequence[Target],
    seed: int,
    inputs: int,
    folder: Path,
    worker: int = 0,
    workers: int = 1,
) -> dict[str, Progress]:
    """Feeds each target its share of the inputs, resuming where an earlier run stopped.

    Args:
        targets: The targets.
        seed: Seed of the inputs.
        inputs: Number of inputs for all targets and processes together.
        folder: Folder for the progress and the findings.
        worker: Number of this process, from 0.
        workers: Number of processes; process n gets every input whose number is n modulo this.

    Returns:
        The progress of this process by the target's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"progress-{worker}-of-{workers}.json"
    progress = {target.name: Progress() for target in targets}
    if state.exists():
        saved = json.loads(state.read_text())
        progress |= {name: Progress(**saved[name]) for name in progress if name in saved}
    total = sum(target.share for target in targets)
    goal = {target.name: -(-inputs * target.share // (total * workers)) for target in targets}
    with limited_memory():
        while any(progress[name].done < goal[name] for name in goal):
            for target in targets:
                current = progress[target.name]
                count = min(_CHUNK, goal[target.name] - current.done)
                first = current.done * workers + worker
                numbers = range(first, first + count * workers, workers)
                fuzz_target(target, seed, numbers, current, folder / "findings")
                temporary = state.with_suffix(".partial")
                temporary.write_text(json.dumps({n: asdict(p) for n, p in progress.items()}))
                temporary.replace(state)
    return progress
