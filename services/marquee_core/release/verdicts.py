"""Stores the gate's verdicts on published releases, in `verdicts/<release id>.json`.

A published release is immutable, and a verdict depends on the release in production at the time.
Therefore only a verdict before publication is part of the manifest. Later verdicts are appended to
this file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from marquee_core.errors import ArtifactError, reason_of
from marquee_core.json_text import parse_json
from marquee_core.release.manifest import Manifest, check_release_id
from marquee_core.release.storage import Storage
from marquee_core.release.verdict import Verdict, parse_verdict

FOLDER = "verdicts"
_SUFFIX = ".json"
_KEPT = 20


def record_verdict(storage: Storage, verdict: Verdict) -> None:
    """Appends a verdict to the file of its release.

    Raises:
        ArtifactError: The file of verdicts is damaged.
        OSError: The store cannot be read or written to.
    """

    def add(content: bytes | None) -> bytes:
        before = [] if content is None else _listed(content, f"verdicts of {verdict.release_id}")
        kept = [*before, asdict(verdict)][-_KEPT:]
        return (json.dumps({"verdicts": kept}, indent=2, allow_nan=False) + "\n").encode()

    storage.update(_path(verdict.release_id), add)


def recorded_verdicts(storage: Storage, release_id: str) -> list[Verdict]:
    """Returns the verdicts on a release since its publication, the oldest first.

    Raises:
        ArtifactError: The file of verdicts is damaged.
        OSError: The store cannot be read.
    """
    try:
        content = storage.read(_path(release_id))
    except FileNotFoundError:
        return []
    where = f"verdicts of {release_id}"
    return [parse_verdict(raw, where) for raw in _listed(content, where)]


def latest_verdict(storage: Storage, manifest: Manifest) -> Verdict | None:
    """Returns the latest verdict on a release; None if the gate has not judged it.

    Raises:
        ArtifactError: The file of verdicts is damaged.
        OSError: The store cannot be read.
    """
    found = recorded_verdicts(storage, manifest.release_id)
    return found[-1] if found else manifest.gate


def delete_verdicts(storage: Storage, release_id: str) -> None:
    """Deletes the verdicts on a release, if any.

    Raises:
        OSError: The store cannot be written to.
    """
    storage.remove(_path(release_id))


def judged_releases(storage: Storage) -> list[str]:
    """Returns the ids of releases with recorded verdicts, including deleted releases."""
    names = storage.names(FOLDER)
    return [
        name.removesuffix(_SUFFIX)
        for name in names
        if name.endswith(_SUFFIX) and not name.startswith(".")
    ]


def _listed(content: bytes, where: str) -> list[Any]:
    try:
        return list(parse_json(content, where)["verdicts"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"damaged {where}: {reason_of(error)}") from error


def _path(release_id: str) -> str:
    return f"{FOLDER}/{check_release_id(release_id)}{_SUFFIX}"
