"""A release of the right shape, made once and kept.

Collaborative filtering is fitted as it is in production. Models that are trained by epochs get few:
epochs change what a model says, not what it costs to ask it. Every model has a weight in the
ensemble, so every answer needs all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import marquee_services
import marquee_trainer
from marquee_core.output import Output
from marquee_core.release.ensemble import (
    BASELINE,
    GATEWAY_MODELS,
    Blend,
    BlendPair,
    Ensemble,
    backend_subsets,
)
from marquee_core.release.manifest import DataEntry, Manifest
from marquee_core.release.store import ReleaseStore
from marquee_trainer.data.source import load_ratings

# Of recent popularity; any costs the same to serve.
_HALF_LIFE_DAYS = 30.0
_SOURCES = ("models", "scoring", "inference", "release", "data")
_FILES = ("first_pages.py", "ratings.py")


@dataclass(frozen=True)
class ReleaseConfig:
    """What a release for benchmarks is made of.

    Attributes:
        data: The ratings, as `marquee train --data` takes them.
        seed: Of all randomness.
        epochs: Of each model that is trained by epochs.
    """

    data: str
    seed: int = 0
    epochs: int = 1


def cached_release(
    config: ReleaseConfig, cache: Path, on_step: Callable[[str], None] = lambda _: None
) -> tuple[ReleaseStore, Manifest]:
    """The release of a configuration, made unless it is in the cache.

    Args:
        config: What it is made of.
        cache: Keeps a store for each configuration.
        on_step: Called with the name of each step as it begins.

    Raises:
        CalledProcessError: It could not be made; why is on stderr.
    """
    folder = cache / f"release-{_digest(config)}"
    store = ReleaseStore(str(folder))
    production = store.production() if folder.exists() else None
    if production is None:
        # What is there was not finished.
        shutil.rmtree(folder, ignore_errors=True)
        _publish_elsewhere(store, config, on_step)
        production = store.production()
        if production is None:
            raise RuntimeError("no release was made")
    return store, store.manifest(production.release_id)


def _publish_elsewhere(
    store: ReleaseStore, config: ReleaseConfig, on_step: Callable[[str], None]
) -> None:
    """Makes the release in a process whose memory is gone before anything is measured."""
    command = [sys.executable, "-m", "bench.release", store.url, json.dumps(asdict(config))]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        for line in process.stdout:
            on_step(line.strip())
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def publish(store: ReleaseStore, config: ReleaseConfig, on_step: Callable[[str], None]) -> Manifest:
    """Makes a release and stores it; it is not promoted.

    Raises:
        RatingsError: The ratings cannot be read.
    """
    # TensorFlow takes seconds to import, and is not needed when the release is there.
    from marquee_core.scorers.bayesian_mf import BayesianMFConfig
    from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
    from marquee_trainer.models.model import Model, Training
    from marquee_trainer.models.registry import MODELS
    from marquee_trainer.publishing.release import publish_release
    from marquee_trainer.training.train import BaselineConfig, release_data

    on_step("load the ratings")
    dataset = load_ratings(config.data, seed=config.seed).dataset
    data = release_data(dataset, dataset.file_order, BaselineConfig(), _HALF_LIFE_DAYS)
    models: list[Model] = []
    for make in MODELS:
        model = make()
        on_step(f"fit {model.name}")
        if model.backend == "inference":
            model = model.with_epochs(config.epochs)
        if isinstance(model, BayesianMF):
            # As many samples as ever, without waiting for them to be good ones.
            samples = BayesianMFConfig().samples
            model = BayesianMF(BayesianMFConfig(burn_in=0, sweeps=samples))
        model.fit(Training(data, seed=config.seed))
        models.append(model)
    on_step("publish")
    entry = DataEntry(
        source=dataset.source,
        fingerprint=dataset.fingerprint(),
        user_count=data.matrix.user_count,
        item_count=data.matrix.item_count,
        rating_count=data.matrix.rating_count,
        rating_min=dataset.scale.low,
        rating_max=dataset.scale.high,
        genres=dataset.catalogue.genres,
    )
    return publish_release(
        store,
        entry,
        dataset.user_ids,
        dataset.catalogue,
        data,
        models,
        even_ensemble([(model.name, model.backend, model.scorer.output) for model in models]),
        metrics={},
        evaluation={"benchmark": asdict(config)},
    )


def even_ensemble(models: Sequence[tuple[str, str, Output]]) -> Ensemble:
    """Weighs all models alike, whatever backends are there.

    Args:
        models: Name, backend and output of each model but the gateway's own.
    """
    pairs = {}
    for subset in backend_subsets(sorted({backend for _, backend, _ in models})):
        there = [(name, output) for name, backend, output in models if backend in subset]
        stars = [BASELINE, *(name for name, output in there if output is Output.STARS)]
        ranking = [*GATEWAY_MODELS, *(name for name, _ in there)]
        pairs[subset] = BlendPair(
            Blend(dict.fromkeys(stars, 1.0 / len(stars)), 0.0),
            Blend(dict.fromkeys(ranking, 1.0 / len(ranking)), 0.0),
        )
    return Ensemble(pairs)


def _digest(config: ReleaseConfig) -> str:
    """Of the configuration, its data's file and the code that makes a release."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    path = Path(config.data)
    if path.exists():
        status = path.stat()
        digest.update(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode())
    for package in (marquee_services, marquee_trainer):
        root = Path(package.__file__ or "").parent
        for name in _SOURCES:
            for file in sorted((root / name).rglob("*.py")):
                digest.update(file.read_bytes())
        for file in sorted(file for name in _FILES for file in root.rglob(name)):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _say(step: str) -> None:
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


def main() -> None:
    """Makes the release of the arguments: the store's URL, and a configuration as JSON."""
    store = ReleaseStore(sys.argv[1])
    manifest = publish(store, ReleaseConfig(**json.loads(sys.argv[2])), _say)
    store.promote(manifest.release_id)


if __name__ == "__main__":
    main()
