"""Parsers of a release store's files: manifests, pointers, signatures, arrays and all others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzz.mutate import mutate_bytes, mutate_json
from fuzz.targets import Target
from marquee_core.arrays import load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.experiments.experiment import ExperimentError
from marquee_core.experiments.store import ExperimentStore
from marquee_core.output import Output
from marquee_core.release.contents import read_release
from marquee_core.release.manifest import Manifest
from marquee_core.release.parsing import parse_manifest
from marquee_core.release.pointer import Change, Production
from marquee_core.release.signing import KeyFileError, Signer, TrustedKeys, generate_key
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_core.release.verdicts import latest_verdict, record_verdict
from marquee_core.scorers.config import load_config
from marquee_core.scorers.ials import IALSConfig
from marquee_core.service_names import GATEWAY
from marquee_services.cf.models import CF_SCORERS
from marquee_services.gateway.releases.release import gateway_release
from toy.experiments import toy_experiment
from toy.release import publish_toy

_WHEN = "2026-01-01T00:00:00+00:00"


def store_targets(folder: Path) -> list[Target]:
    """Returns the targets."""
    store = ReleaseStore(str(folder / "store"))
    own = publish_toy(store, folder / "own", backends=(), precomputed=True)
    with_model = publish_toy(store, folder / "with-model", seed=1, servable=True)
    return [
        *_documents(folder, own),
        *_signatures(folder),
        *_arrays(folder),
        _release_files(folder / "own", own),
        _model_files(folder / "with-model", with_model),
    ]


def _documents(folder: Path, manifest: Manifest) -> list[Target]:
    """Returns the targets that parse JSON documents."""
    change = Change(3, "promote", "r1", "somebody@somewhere", "because", False)
    pointer = Production("r2", _WHEN, ("r1", "r0"), change)
    store = ReleaseStore(str(folder / "documents"))
    experiments = json.dumps({"format": 1, "experiments": [toy_experiment().to_json()]})
    verdict = Verdict.of(
        "r1", "r0", _WHEN, [Check("ranking", Decision.ASK, "worse", {"ndcg": 0.3})]
    )
    record_verdict(store.storage, verdict)
    verdicts = Path(store.storage.root) / "verdicts" / "r1.json"
    seeds = [verdicts.read_bytes()]

    def read_experiments(data: bytes) -> None:
        (Path(store.storage.root) / "experiments").write_bytes(data)
        ExperimentStore(store).all()

    judged = replace(manifest, release_id="r1")

    def read_verdicts(data: bytes) -> None:
        verdicts.write_bytes(data)
        latest_verdict(store.storage, judged)
        record_verdict(store.storage, verdict)

    config = folder / "config"
    config.mkdir()

    def read_config(data: bytes) -> None:
        (config / "config.json").write_bytes(data)
        load_config(config, IALSConfig)

    settings = b'{"factors": 8, "minimum_stars": 4.0, "unobserved_weight": 0.5, "sweeps": 3}'
    return [
        Target(
            "manifests",
            120,
            [manifest.to_json().encode()],
            lambda data: parse_manifest(data, manifest.release_id),
            (ArtifactError,),
            mutate_json,
        ),
        Target(
            "pointers", 60, [pointer.to_json()], Production.from_json, (ArtifactError,), mutate_json
        ),
        Target(
            "experiments",
            30,
            [experiments.encode()],
            read_experiments,
            (ArtifactError, ExperimentError),
            mutate_json,
        ),
        Target("verdicts", 10, seeds, read_verdicts, (ArtifactError,), mutate_json),
        Target("configurations", 20, [settings], read_config, (ArtifactError,), mutate_json),
    ]


def _signatures(folder: Path) -> list[Target]:
    key = folder / "key"
    public, _ = generate_key(key)
    trusted, signer = TrustedKeys.load(public), Signer.load(key)
    signed = signer.sign(b"{}")
    given = folder / "given.pem"

    def read_keys(data: bytes) -> None:
        given.write_bytes(data)
        if b"PRIVATE" in data:
            Signer.load(given)
        else:
            TrustedKeys.load(given)

    keys = [key.read_bytes(), public.read_bytes(), 2 * public.read_bytes()]
    return [
        Target(
            "signatures",
            30,
            [signed, signed + signed],
            lambda data: trusted.check(b"{}", data, "r1"),
            (ArtifactError,),
        ),
        Target("key files", 10, keys, read_keys, (KeyFileError,)),
    ]


def _arrays(folder: Path) -> list[Target]:
    path = folder / "array.npy"
    kinds: list[tuple[NDArray[Any], Any, tuple[int | None, ...]]] = [
        (np.ones((5, 4), np.float32), np.float32, (None, 4)),
        (np.arange(7, dtype=np.int64), np.int64, (None,)),
        (np.array([b"u1", b"u22"]), "S", (None,)),
        (np.zeros((0, 4), np.float32), np.float32, (None, 4)),
    ]
    seeds = []
    for place, (array, _, _) in enumerate(kinds):
        save_array(path, array)
        seeds.append(bytes([place]) + path.read_bytes())
        path.unlink()

    def read(data: bytes) -> None:
        _, dtype, shape = kinds[data[0] % len(kinds) if data else 0]
        path.unlink(missing_ok=True)
        path.write_bytes(data[1:])
        load_array(path, dtype, shape)

    return [Target("arrays", 80, seeds, read, (ArtifactError,))]


def _release_files(folder: Path, manifest: Manifest) -> Target:
    names = [model.name for model in manifest.models if model.backend == GATEWAY]

    def load(folder: Path) -> None:
        gateway_release(read_release(manifest, folder), names)

    return _files("release files", 50, folder, load)


def _model_files(folder: Path, manifest: Manifest) -> Target:
    [entry] = [
        model
        for model in manifest.models
        if model.output is Output.AFFINITY and model.backend != GATEWAY
    ]

    def load(folder: Path) -> None:
        files = read_release(manifest, folder)
        CF_SCORERS[entry.name](files.model_folder(entry.name), files.data)

    return _files("model files", 20, folder, load)


def _files(name: str, share: int, folder: Path, load: Callable[[Path], None]) -> Target:
    """Returns a target that damages one file of a folder.

    The first byte of an input selects the file, and the rest is its content.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in paths]

    def run(data: bytes) -> None:
        place = data[0] % len(paths) if data else 0
        try:
            paths[place].unlink()
            paths[place].write_bytes(data[1:])
            load(folder)
        finally:
            paths[place].unlink()
            paths[place].write_bytes(contents[place])

    seeds = [bytes([place]) + content for place, content in enumerate(contents)]
    return Target(name, share, seeds, run, (ArtifactError,), mutate_bytes)
