"""Reads and writes the configuration of a model, stored with its artifacts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.scorers.hyperparameters import ModelConfig

ConfigT = TypeVar("ConfigT", bound=ModelConfig)

_FILE = "config.json"
_FOLDS_ON_REQUEST = "folds_on_request"


def save_config(folder: Path, config: ModelConfig) -> None:
    """Writes a configuration to a folder as JSON; creates the folder if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(config), indent=2, allow_nan=False)
    (folder / _FILE).write_text(text + "\n")


def load_config(folder: Path, config_type: type[ConfigT]) -> ConfigT:
    """Reads a configuration written by `save_config`.

    Args:
        folder: The folder with the model's artifacts.
        config_type: The class of the configuration.

    Raises:
        ArtifactError: The file is missing or damaged, or has an unknown field or a value out of
            range.
    """
    try:
        return config_type(**parse_json((folder / _FILE).read_bytes(), _FILE))
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{_FILE}: {error}") from error


def mark_folds_on_request(folder: Path) -> None:
    """Records that the model was saved without the data of known users."""
    (folder / _FOLDS_ON_REQUEST).touch()


def folds_on_request(folder: Path) -> bool:
    """Returns whether the model was saved without the data of known users.

    The marker file distinguishes such a model from one with a missing file.
    """
    return (folder / _FOLDS_ON_REQUEST).exists()
