"""The release that the benchmark serves, trained once and cached.

Its models have the size and the cost of those in production. Neural models are trained for only a
few epochs, because more epochs change the scores but not the cost of scoring. The ensemble has the
weights that training on MovieLens 1M learns, so answers need the same models as there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import marquee_core
import marquee_services
import marquee_trainer
from marquee_core.output import Output
from marquee_core.release.ensemble import (
    BASELINE,
    POPULARITY,
    RECENT_POPULARITY,
    Blend,
    BlendPair,
    Ensemble,
    backend_subsets,
)
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, INFERENCE
from marquee_trainer.data.source import load_ratings

COPIES = "copies"
"""Folder next to the store for the benchmark's own copies of release files."""

# Half-life of recent popularity. It does not affect the cost of serving.
_HALF_LIFE_DAYS = 30.0
# The weights of the rating and ranking blends that training on MovieLens 1M learns with default
# settings, for each set of available backends. Weights below 0.01 are omitted.
_LEARNED_WEIGHTS: Mapping[frozenset[str], tuple[Mapping[str, float], Mapping[str, float]]] = {
    frozenset(): ({BASELINE: 1.0}, {POPULARITY: 0.54}),
    frozenset({CF}): (
        {"item_cf": 0.35, "bayesian_mf": 0.74, BASELINE: -0.09},
        {"ease": 27.7, "slit": 50.6, "bayesian_mf": 0.66, "ials": 0.62},
    ),
    frozenset({INFERENCE}): (
        {
            "mf": 0.16,
            "residual_mf": 0.43,
            "autorec": 0.38,
            "user_autorec": 0.13,
            BASELINE: -0.1,
        },
        {POPULARITY: 0.44, "deep_mf": 0.17, "residual_mf": 0.11},
    ),
    frozenset({CF, INFERENCE}): (
        {
            "item_cf": 0.21,
            "bayesian_mf": 0.55,
            "residual_mf": 0.11,
            "autorec": 0.22,
            BASELINE: -0.09,
        },
        {"ease": 27.7, "slit": 50.6, "bayesian_mf": 0.66, "ials": 0.62},
    ),
}
# The code that determines the contents of a release: packages with their folders.
_SOURCES = (
    (marquee_core, (".",)),
    (marquee_services, ("gateway/ranking", "gateway/releases")),
    (marquee_trainer, ("data", "models", "publishing", "training")),
)


@dataclass(frozen=True)
class ReleaseConfig:
    """Configuration of the release.

    Attributes:
        data: The ratings, as for `marquee train --data`.
        seed: Seed for the sample of ratings and for the models.
        epochs: Number of epochs for each neural model.
    """

    data: str
    seed: int = 0
    epochs: int = 1


def cached_release(
    config: ReleaseConfig, cache: Path, on_step: Callable[[str], None] = lambda _: None
) -> tuple[ReleaseStore, Manifest]:
    """Returns the release for a configuration, training and publishing it if it is not cached.

    Args:
        config: The configuration.
        cache: Folder with a release store for each configuration.
        on_step: Called with the name of each step when it starts.

    Returns:
        The release store and the manifest of the release.

    Raises:
        CalledProcessError: Training or publishing failed; the reason is on stderr.
    """
    folder = cache / f"release-{_digest(config)}"
    store = ReleaseStore(str(folder))
    production = store.production() if folder.exists() else None
    if production is None:
        # A folder without a promoted release is left over from an interrupted run.
        shutil.rmtree(folder, ignore_errors=True)
        _publish_in_subprocess(store, config, on_step)
        production = store.production()
        if production is None:
            raise RuntimeError("the release was not promoted")
    return store, store.manifest(production.release_id)


def _publish_in_subprocess(
    store: ReleaseStore, config: ReleaseConfig, on_step: Callable[[str], None]
) -> None:
    """Publishes in a subprocess, so that its memory is freed before the measurements."""
    command = [sys.executable, "-m", "bench.release", store.url, json.dumps(asdict(config))]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        for line in process.stdout:
            on_step(line.strip())
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def publish(store: ReleaseStore, config: ReleaseConfig, on_step: Callable[[str], None]) -> Manifest:
    """Trains the models and publishes a release, without promoting it.

    Args:
        store: The store to publish to.
        config: The configuration.
        on_step: Called with the name of each step when it starts.

    Raises:
        RatingsError: The ratings cannot be read.
    """
    # Imported late: TensorFlow takes seconds to import, and a cached release does not need it.
    from marquee_core.scorers.bayesian_mf import BayesianMFConfig
    from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
    from marquee_trainer.models.model import Model, Training
    from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel
    from marquee_trainer.models.registry import MODELS
    from marquee_trainer.publishing.release import data_entry, publish_release
    from marquee_trainer.training.config import BaselineConfig
    from marquee_trainer.training.preparation import release_data

    on_step("load the ratings")
    dataset = load_ratings(config.data, seed=config.seed).dataset
    data = release_data(dataset, dataset.file_order, BaselineConfig(), _HALF_LIFE_DAYS)
    models: list[Model] = []
    for make in MODELS:
        model = make()
        on_step(f"fit {model.name}")
        if isinstance(model, TensorFlowModel):
            model = model.with_epochs(config.epochs)
        if isinstance(model, BayesianMF):
            # The default number of samples, without burn-in, which does not affect the cost.
            samples = BayesianMFConfig().samples
            model = BayesianMF(BayesianMFConfig(burn_in=0, sweeps=samples))
        model.fit(Training(data, seed=config.seed))
        models.append(model)
    on_step("publish")
    return publish_release(
        store,
        data_entry(dataset, data, dataset.file_order),
        dataset.user_ids,
        dataset.catalogue,
        data,
        models,
        typical_ensemble([(model.name, model.backend, model.scorer.output) for model in models]),
        metrics={},
        evaluation={"benchmark": asdict(config)},
    )


def typical_ensemble(models: Sequence[tuple[str, str, Output]]) -> Ensemble:
    """Makes an ensemble with the weights that training on MovieLens 1M learns.

    Models that are not part of a blend are still in the release and are loaded.

    Args:
        models: Name, backend and output of each model, without the gateway's models.
    """
    names = {name for name, _, _ in models} | {BASELINE, POPULARITY, RECENT_POPULARITY}

    def blend(weights: Mapping[str, float]) -> Blend:
        known = {name: weight for name, weight in weights.items() if name in names}
        return Blend(known or {POPULARITY: 1.0}, 0.0)

    return Ensemble(
        {
            subset: BlendPair(*map(blend, _LEARNED_WEIGHTS[subset]))
            for subset in backend_subsets(sorted({backend for _, backend, _ in models}))
        }
    )


def _digest(config: ReleaseConfig) -> str:
    """Hashes the configuration, the data file's status and the code that determines a release."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    digest.update(Path(__file__).read_bytes())
    path = Path(config.data)
    if path.exists():
        status = path.stat()
        digest.update(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode())
    for package, folders in _SOURCES:
        root = Path(package.__file__ or "").parent
        for folder in folders:
            for file in sorted((root / folder).rglob("*.py")):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _print_step(step: str) -> None:
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


def main() -> None:
    """Publishes and promotes a release.

    The arguments are the URL of the store and the configuration as JSON.
    """
    store = ReleaseStore(sys.argv[1])
    manifest = publish(store, ReleaseConfig(**json.loads(sys.argv[2])), _print_step)
    store.promote(manifest.release_id)


if __name__ == "__main__":
    main()
