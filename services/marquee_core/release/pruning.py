"""Deletes old releases that are no longer needed, and the leftovers of killed processes.

Some releases are always kept: the newest ones, the release in production and its predecessor,
releases named by a running experiment or by another file next to the pointer, releases that servers
are known to have loaded, and releases that were in production recently and may still be loaded. If
a server uses a deleted release nevertheless, it is not affected, because it serves its own copy.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.release.pointer import PRODUCTION
from marquee_core.release.store import ReleaseStore
from marquee_core.release.transfer import remove_leftovers
from marquee_core.release.verdicts import delete_verdicts, judged_releases

RECENTLY = timedelta(days=1)
"""How long a release may still be loaded by a server after it has left production."""

# Temporary folders of trainers, gates, verifications and lists of users.
_TEMPORARY = tuple(
    f"{folder}marquee-{what}-*"
    for what in ("release", "gate", "input", "data", "verify", "users")
    for folder in ("", "marquee-*/")
)
_LEFTOVER_AGE_S = 24 * 3600.0


@dataclass(frozen=True)
class Pruned:
    """The result of pruning.

    Attributes:
        releases: The ids of the deleted releases, the oldest first.
        leftovers: The number of unfinished files and folders that were removed.
        kept: The reasons why older releases were kept, by id.
        newest: The number of releases that were kept because they are the newest.
    """

    releases: tuple[str, ...]
    leftovers: int
    kept: dict[str, str]
    newest: int


def prune(
    store: ReleaseStore,
    keep: int,
    loaded: Collection[str] = (),
    recently: timedelta = RECENTLY,
    dry_run: bool = False,
) -> Pruned:
    """Deletes all but the newest releases, their verdicts, and leftovers of killed processes.

    Args:
        store: The release store.
        keep: The number of newest releases to keep, at least 1.
        loaded: The ids of releases that servers have loaded.
        recently: Releases that were in production within this time are kept.
        dry_run: Whether to delete nothing and only report what would be deleted.

    Raises:
        ArtifactError: The file that names the release in production cannot be used.
        ValueError: `keep` is less than 1.
        OSError: The store cannot be read or written to.
    """
    if keep < 1:
        raise ValueError("at least one release must be kept")
    reasons = {**_named_elsewhere(store), **_in_production(store, recently)}
    reasons.update(dict.fromkeys(loaded, "loaded by a server"))
    ids = sorted(store.ids(), key=lambda name: _age_key(store, name), reverse=True)
    deleted, kept = [], {}
    for release_id in reversed(ids[keep:]):
        if release_id in reasons:
            kept[release_id] = reasons[release_id]
            continue
        # It may have been promoted while other releases were being deleted.
        production = store.production()
        if production is not None and release_id == production.release_id:
            kept[release_id] = "in production"
            continue
        if not dry_run:
            store.delete(release_id)
        deleted.append(release_id)
    leftovers = 0
    if not dry_run:
        _remove_verdicts(store)
        leftovers = _remove_leftovers(store)
    return Pruned(tuple(deleted), leftovers, kept, len(ids[:keep]))


def _age_key(store: ReleaseStore, release_id: str) -> tuple[str, str]:
    """Returns a key that sorts releases by publication time (damaged ones by id)."""
    try:
        published = datetime.fromisoformat(store.manifest(release_id).published_at)
    except ArtifactError:
        return release_id, release_id
    return f"{published.astimezone(UTC):%Y%m%dT%H%M%S.%f}", release_id


def _in_production(store: ReleaseStore, recently: timedelta) -> dict[str, str]:
    """Returns the releases in production now, before and recently, with the reason to keep each."""
    production = store.production()
    if production is None:
        return {}
    reasons = {production.release_id: "in production"}
    for release_id in production.history[:1]:
        reasons.setdefault(release_id, "in production before")
    limit = datetime.now(UTC) - recently
    for state in store.pointer.audit():
        # A change ends the time in production of the previous release.
        if datetime.fromisoformat(state.promoted_at) < limit:
            break
        for release_id in (state.release_id, state.change.previous_id):
            reasons.setdefault(release_id, "in production recently")
    return reasons


def _named_elsewhere(store: ReleaseStore) -> dict[str, str]:
    """Returns the releases named by files next to the pointer, with the reason to keep each."""
    known, reasons = set(store.ids()), {}
    for name in store.storage.names(""):
        if name.startswith(".") or name in (PRODUCTION, "releases", "audit"):
            continue
        try:
            content = parse_json(store.storage.read(name), f"file {name!r}")
        except (ArtifactError, OSError):  # a folder, or not JSON
            continue
        for text in _texts(content):
            if text in known:
                reasons[text] = f"named in {name}"
    return reasons


def _texts(value: Any) -> Iterator[str]:
    """Yields the strings in a JSON document, except those in objects that have ended."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and not value.get("ended_at"):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _remove_verdicts(store: ReleaseStore) -> None:
    """Deletes the verdicts on releases that no longer exist."""
    # In this order, because a release exists before the first verdict on it.
    judged = judged_releases(store.storage)
    existing = set(store.ids())
    for release_id in judged:
        if release_id not in existing:
            delete_verdicts(store.storage, release_id)


def _remove_leftovers(store: ReleaseStore) -> int:
    removed = store.remove_unfinished(_LEFTOVER_AGE_S)
    temporary = Path(tempfile.gettempdir())
    for pattern in _TEMPORARY:
        for path in temporary.glob(pattern):
            if path.is_dir() and time.time() - path.stat().st_mtime > _LEFTOVER_AGE_S:
                removed += remove_leftovers(path.parent, _LEFTOVER_AGE_S, path.name)
    return removed
