"""Runs the targets, remembers how far it came, and keeps the inputs that found something."""

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

# An input that takes longer, or more memory, is a finding as well.
_LONGEST_S = 20.0
_MAX_BYTES = 2 * 1024**3
_AT_ONCE = 200


class InputTimeout(Exception):
    """An input kept its parser busy for too long."""


@dataclass
class Progress:
    """How far one process came with one target.

    Attributes:
        done: The number of inputs of this process.
        refused: How many ended in the parser's own error.
        findings: The numbers of the inputs that ended in anything else.
    """

    done: int = 0
    refused: int = 0
    findings: list[int] = field(default_factory=list)


def input_of(target: Target, seed: int, number: int) -> bytes:
    """An input of a target by its number."""
    rng = random.Random(f"{seed} {target.name} {number}")  # noqa: S311 - not for cryptography
    return target.mutate(rng, target.seeds)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limits the memory that the process may take in addition to what it has."""
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
    """Gives inputs to a target.

    Args:
        target: The target.
        seed: The seed of the inputs.
        numbers: The numbers of the inputs.
        progress: What is known so far; it is changed.
        findings: Folder for the inputs that found something.
    """

    def ring(_number: int, _frame: object) -> None:
        raise InputTimeout(f"more than {_LONGEST_S:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for number in numbers:
            data = input_of(target, seed, number)
            signal.setitimer(signal.ITIMER_REAL, _LONGEST_S)
            try:
                target.run(data)
            except target.errors:
                progress.refused += 1
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # polars' panics are no exceptions
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
    """Gives each target its share of the inputs, and continues where an earlier run ended.

    Args:
        targets: The targets.
        seed: The seed of the inputs.
        inputs: The number of inputs of all targets and processes together.
        folder: Folder for the progress and the findings.
        worker: The number of this process, from 0.
        workers: The number of processes, which take turns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"progress-{worker}-of-{workers}.json"
    progress = {target.name: Progress() for target in targets}
    if state.exists():
        known = json.loads(state.read_text())
        progress |= {name: Progress(**known[name]) for name in progress if name in known}
    total = sum(target.share for target in targets)
    wanted = {target.name: -(-inputs * target.share // (total * workers)) for target in targets}
    with limited_memory():
        while any(progress[name].done < wanted[name] for name in wanted):
            for target in targets:
                mine = progress[target.name]
                count = min(_AT_ONCE, wanted[target.name] - mine.done)
                first = mine.done * workers + worker
                numbers = range(first, first + count * workers, workers)
                fuzz_target(target, seed, numbers, mine, folder / "findings")
                written = state.with_suffix(".partial")
                written.write_text(json.dumps({n: asdict(p) for n, p in progress.items()}))
                written.replace(state)
    return progress
