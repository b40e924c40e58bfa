"""The parsers under test, each with valid inputs and the errors that it may raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutate import Mutate, mutate_bytes


@dataclass(frozen=True)
class Target:
    """A parser under test.

    Attributes:
        name: Name of the parser.
        share: Its share of the inputs, relative to the other parsers.
        seeds: Valid inputs.
        run: Parses an input.
        errors: The errors that the parser may raise; any other error is a finding.
        mutate: Makes damaged inputs from the valid ones.
    """

    name: str
    share: int
    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    errors: tuple[type[BaseException], ...]
    mutate: Mutate = mutate_bytes


def all_targets(folder: Path) -> list[Target]:
    """Returns all targets.

    Args:
        folder: An empty folder for the files that are parsed, preferably in memory.
    """
    # Imported late, because these import the services and the trainer.
    from fuzz.request_targets import request_targets
    from fuzz.store_targets import store_targets
    from fuzz.table_targets import table_targets
    from fuzz.token_targets import token_targets

    found: list[Target] = []
    for make in (request_targets, store_targets, token_targets, table_targets):
        own = folder / make.__name__
        own.mkdir()
        found += make(own)
    return found
