"""The file of tuned hyperparameters that `marquee tune` writes and training reads."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import read_parameters
from marquee_trainer.tuning.spaces import SPACES
from marquee_trainer.tuning.trials import Search


class TunedFile:
    """A file of the best hyperparameters of each model, with a record of how they were found.

    It can be written after every trial. Each write replaces the file atomically, so an interrupted
    search leaves the best configurations found so far.
    """

    def __init__(self, path: Path, dataset: RatingsDataset, split: Split, seed: int) -> None:
        """Reads the file if it exists. Entries of models that are not searched are kept.

        Args:
            path: The file.
            dataset: The ratings.
            split: The split on whose training part models are tuned.
            seed: The seed of the searches.

        Raises:
            ConfigurationError: The existing file is not a file of tuned configurations.
        """
        self._path, self._seed = path, seed
        self._before: dict[str, Any] = {}
        if path.exists():
            read_parameters(path)
            self._before = json.loads(path.read_text())["models"]
        self._data = {
            "ratings": len(dataset),
            "users": len(dataset.user_ids),
            "items": len(dataset.catalogue),
            "fingerprint": dataset.fingerprint(),
            "split": split.description,
            "training_ratings": len(split.train),
            "training_fingerprint": dataset.fingerprint(split.train),
        }

    def write(self, searches: Sequence[Search]) -> None:
        """Writes the best configurations.

        If the file already has an entry for a model, its number of trials is added, unless these
        belong to the same study, which includes them. The first loss stays that of the first
        search.

        Args:
            searches: The searches of this run so far; those without a completed trial are skipped.

        Raises:
            OSError: The file cannot be written.
        """
        models = dict(self._before)
        for search in searches:
            if all(trial.pruned for trial in search.trials):
                continue
            best, before = search.best, self._before.get(search.model, {})
            same = bool(search.study) and before.get("study") == search.study
            models[search.model] = {
                "parameters": dict(best.parameters),
                "validation_loss": round(best.loss, 5),
                "first_loss": before.get("first_loss", round(search.trials[0].loss, 5)),
                "trials": len(search.trials) + (0 if same else before.get("trials", 0)),
                "seconds": best.seconds,
                "date": datetime.now(UTC).date().isoformat(),
                "seed": self._seed,
                "study": search.study,
                "space": {
                    name: [values.low, values.high] for name, values in SPACES[search.model].items()
                },
            }
        text = json.dumps({"data": self._data, "models": dict(sorted(models.items()))}, indent=2)
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(text + "\n")
        os.replace(new, self._path)
