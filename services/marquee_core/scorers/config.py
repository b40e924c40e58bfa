"""Configurations of models, kept beside what was learned with them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from marquee_core.errors import ArtifactError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)

_FILE = "config.json"


def save_config(folder: Path, config: DataclassInstance) -> None:
    """Writes a config dataclass of numbers as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(config), indent=2, allow_nan=False)
    (folder / _FILE).write_text(text + "\n")


def load_config(folder: Path, kind: type[Config]) -> Config:
    """Reads what `save_config` wrote.

    Raises:
        ArtifactError: The file is missing or damaged, or the config refuses its values.
    """
    try:
        return kind(**json.loads((folder / _FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{_FILE}: {error}") from error
