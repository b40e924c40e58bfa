"""Parses the JSON of a manifest, and validates all types, ranges, names and paths."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.output import Output
from marquee_core.release.fields import Fields
from marquee_core.release.manifest import (
    EXPLICIT,
    IMPLICIT,
    MANIFEST_NAME,
    READABLE_VERSIONS,
    DataEntry,
    FileEntry,
    Manifest,
    ModelEntry,
)
from marquee_core.release.signing import SIGNATURE_NAME
from marquee_core.release.verdict import Verdict, parse_verdict
from marquee_core.service_names import SERVICES

_WHAT = "manifest"
_MAX_COUNT = 2**31 - 1  # indexes of users and items are int32
_MAX_RATINGS = 2**40
_MAX_FILE_BYTES = 2**50
_MAX_FILES, _MAX_MODELS, _MAX_GENRES = 10_000, 1_000, 4_096
_MAX_PATH = 512
# A rating scale beyond this is assumed to be a mistake.
_MAX_STARS = 1e6
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_manifest(content: bytes, release_id: str) -> Manifest:
    """Parses a manifest, and checks everything that does not depend on the release's files.

    Args:
        content: The JSON written by `Manifest.to_json`.
        release_id: The expected release.

    Raises:
        ArtifactError: The manifest is damaged, has an unsupported schema version, describes
            another release, or has an invalid value.
    """
    if len(content) > _MAX_MANIFEST_BYTES:
        raise ArtifactError(f"damaged manifest: larger than {_MAX_MANIFEST_BYTES} bytes")
    fields = Fields(parse_json(content, _WHAT), _WHAT)
    version = fields.integer("schema_version", 0, 10**6)
    if version not in READABLE_VERSIONS:
        raise ArtifactError(
            f"the manifest has schema version {version}, "
            f"but this version of Marquee reads {', '.join(map(str, READABLE_VERSIONS))}"
        )
    manifest_id = fields.text("release_id")
    if manifest_id != release_id:
        raise ArtifactError(f"the manifest belongs to release {manifest_id!r}")
    fields.check_names(_names_of(Manifest))
    files = _files(fields)
    return Manifest(
        release_id=release_id,
        published_at=fields.time("published_at"),
        data=_data(Fields(fields.value("data"), f"{_WHAT}, data")),
        models=_models(fields),
        evaluation=fields.mapping("evaluation"),
        library_versions=fields.texts("library_versions"),
        files=files,
        schema_version=version,
        feedback_position=_optional(
            fields, "feedback_position", 0, lambda name: fields.integer(name, 0, 2**63 - 1)
        ),
        feedback_mark=_optional(fields, "feedback_mark", "", fields.text),
        gate=_optional(fields, "gate", None, lambda name: _gate(fields, name, release_id)),
    )


def _gate(fields: Fields, name: str, release_id: str) -> Verdict:
    verdict = parse_verdict(fields.value(name), f"{_WHAT}, {name}")
    if verdict.release_id != release_id:
        raise fields.error(name, f"the verdict is on release {verdict.release_id[:100]!r}")
    return verdict


def _data(fields: Fields) -> DataEntry:
    fields.check_names(_names_of(DataEntry))
    low, high = fields.number("rating_min"), fields.number("rating_max")
    if not -_MAX_STARS <= low < high <= _MAX_STARS:
        raise fields.error("rating_min", f"a scale of {low} to {high} is not possible")
    feedback = _optional(fields, "feedback", EXPLICIT, fields.text)
    if feedback not in (EXPLICIT, IMPLICIT):
        raise fields.error("feedback", f"expected {EXPLICIT} or {IMPLICIT}, not {feedback!r}")
    limit = fields.raw.get("dislike_limit")
    if limit is not None and not low <= fields.number("dislike_limit") <= high:
        raise fields.error("dislike_limit", f"{limit} is not on the scale of {low} to {high}")
    genres = fields.sequence("genres", _MAX_GENRES)
    if not all(isinstance(genre, str) and 0 < len(genre) <= 1000 for genre in genres):
        raise fields.error("genres", "a genre must be a string of 1 to 1000 characters")
    if len(set(genres)) != len(genres):
        raise fields.error("genres", "a genre is repeated")
    return DataEntry(
        source=fields.text("source", 100_000),
        fingerprint=fields.text("fingerprint"),
        user_count=fields.integer("user_count", 0, _MAX_COUNT),
        item_count=fields.integer("item_count", 0, _MAX_COUNT),
        rating_count=fields.integer("rating_count", 0, _MAX_RATINGS),
        rating_min=low,
        rating_max=high,
        genres=tuple(genres),
        feedback=feedback,
        refitted=_optional(fields, "refitted", False, fields.boolean),
        dislike_limit=limit,
    )


def _models(fields: Fields) -> tuple[ModelEntry, ...]:
    entries = []
    for index, raw in enumerate(fields.sequence("models", _MAX_MODELS)):
        model = Fields(raw, f"{_WHAT}, models[{index}]")
        model.check_names(_names_of(ModelEntry))
        name, output = model.text("name"), model.text("output")
        if not _MODEL_NAME.fullmatch(name):
            raise model.error("name", f"not a valid model name: {name[:100]!r}")
        if output not in {kind.value for kind in Output}:
            raise model.error("output", f"unknown output {output!r}")
        if model.text("backend") not in SERVICES:
            raise ArtifactError(f"model {name!r} has the unknown backend {model.text('backend')!r}")
        retrieval = _optional(model, "retrieval", None, model.mapping)
        entries.append(
            ModelEntry(
                name=name,
                backend=model.text("backend"),
                output=Output(output),
                version=model.text("version", 64),
                parameters=model.mapping("parameters"),
                metrics=model.numbers("metrics"),
                **({} if retrieval is None else {"retrieval": retrieval}),
            )
        )
    if len({entry.name for entry in entries}) != len(entries):
        raise fields.error("models", "two models have the same name")
    return tuple(entries)


def _files(fields: Fields) -> dict[str, FileEntry]:
    raw = fields.mapping("files")
    if not 0 < len(raw) <= _MAX_FILES:
        raise fields.error("files", f"expected 1 to {_MAX_FILES} files, not {len(raw)}")
    files = {}
    for path, entry in raw.items():
        _check_path(path)
        inner = Fields(entry, f"{_WHAT}, files, {path!r}")
        inner.check_names(_names_of(FileEntry))
        digest = inner.text("sha256")
        if not _SHA256.fullmatch(digest):
            raise inner.error("sha256", "not a SHA-256 in hexadecimal")
        files[path] = FileEntry(digest, inner.integer("size", 0, _MAX_FILE_BYTES))
    return files


def _check_path(path: str) -> None:
    parts = path.split("/")
    if (
        len(path) > _MAX_PATH
        or path in (MANIFEST_NAME, SIGNATURE_NAME)
        or "\\" in path
        or not path.isprintable()
        or any(part in ("", ".", "..") or part.startswith(".partial-") for part in parts)
    ):
        raise ArtifactError(f"the manifest lists a file outside the release: {path[:_MAX_PATH]!r}")


def _optional(fields: Fields, name: str, default: Any, read: Any) -> Any:
    """Returns a field, or a default if the field is missing."""
    return read(name) if name in fields.raw else default


def _names_of(entry: type[Any]) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(entry))
