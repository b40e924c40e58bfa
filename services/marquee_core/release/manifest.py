"""The manifest of a release: its data, models, evaluation and files.

`parsing.py` reads and checks its JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.release.verdict import Verdict

SCHEMA_VERSION = 5
# Schema 3 lacks `DataEntry.feedback` and `DataEntry.refitted`, and schema 4 lacks `feedback_mark`.
# The defaults describe such releases.
READABLE_VERSIONS = (3, 4, SCHEMA_VERSION)
EXPLICIT, IMPLICIT = "explicit", "implicit"
MANIFEST_NAME = "manifest.json"
EXACT, ANN = "exact", "ann"
_RELEASE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileEntry:
    """A file of a release.

    Attributes:
        sha256: SHA-256 of the content, in hexadecimal.
        size: Size in bytes.
    """

    sha256: str
    size: int

    def check(self, found: FileEntry, path: str) -> None:
        """Compares the content of a file with this entry.

        Args:
            found: The digest and size of the content.
            path: The file, for the error message.

        Raises:
            ArtifactError: They differ.
        """
        if found.size > self.size:
            raise ArtifactError(
                f"{path}: the file has more than the {self.size} bytes listed in the manifest"
            )
        if found != self:
            raise ArtifactError(
                f"{path}: the file has SHA-256 {found.sha256[:12]}… and {found.size} bytes, "
                f"but the manifest lists {self.sha256[:12]}… and {self.size}"
            )


@dataclass(frozen=True)
class DataEntry:
    """The ratings that a release serves: those on which its models were fitted.

    The ratings on which the models were evaluated are described in `Manifest.evaluation`.

    Attributes:
        source: Source of the ratings, for example `sample(seed=0)`.
        fingerprint: SHA-256 of these ratings, in hexadecimal.
        user_count: Number of users.
        item_count: Number of items.
        rating_count: Number of these ratings.
        rating_min: Lowest rating of the scale, in stars.
        rating_max: Highest rating of the scale, in stars.
        genres: Genre names, in the order of the bits in `Catalogue.genre_bits`.
        feedback: `explicit` for ratings, or `implicit` for interactions such as plays and
            purchases. A release of implicit feedback has rankers only and does not predict stars.
        refitted: Whether the models were refitted on all ratings after their evaluation. If not,
            they were fitted only on the training part of the evaluation.
        dislike_limit: The highest rating that is a dislike, in stars; None if no rating is one,
            as for implicit feedback.
    """

    source: str
    fingerprint: str
    user_count: int
    item_count: int
    rating_count: int
    rating_min: float
    rating_max: float
    genres: tuple[str, ...]
    feedback: str = EXPLICIT
    refitted: bool = False
    dislike_limit: float | None = None


@dataclass(frozen=True)
class ModelEntry:
    """A model of a release.

    Attributes:
        name: The model's name; its artifacts are in `models/<name>/`.
        backend: The name of the service that scores with it, from `marquee_core.service_names`.
        output: The meaning of its scores.
        version: The first 12 hexadecimal digits of the digest of its artifacts.
        parameters: Its hyperparameters.
        metrics: Its evaluation, by name of the metric.
        retrieval: How a server finds its best items in a large catalogue. `kind` is `exact` or
            `ann` (approximate nearest neighbours). `ann` also has the `parameters` of the index
            and the measured `recall_at_100`.
    """

    name: str
    backend: str
    output: Output
    version: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    retrieval: Mapping[str, Any] = field(default_factory=lambda: {"kind": EXACT})


@dataclass(frozen=True)
class Manifest:
    """The description of a release.

    Attributes:
        release_id: The release's id.
        published_at: Time of publication, RFC 3339.
        data: The ratings that it serves.
        models: Its models.
        evaluation: How it was evaluated: the `split` and its `seed`, the number of
            `training_ratings` and `test_ratings`, the `training_fingerprint` (SHA-256 of the
            training ratings), the configuration (`training`), the `ensemble_metrics`, and the
            `coverage` of models that use only a part of large data. If a time limit ended the
            precomputing of first pages, `first_pages` has the number of `users` whose pages were
            computed and of those `wanted`.
        library_versions: Versions of the libraries that it was trained with, by name.
        files: All files of the release except the manifest, by path relative to its folder.
        schema_version: Version of the manifest's format.
        feedback_position: The position in the feedback log up to which events are included in the
            training data; 0 if it was trained without the log.
        feedback_mark: The token of the mark that the trainer wrote at that position; "" if there
            is none. A log without this mark is not the one that the release was trained on.
        gate: The verdict of the promotion gate before the release was published; None if the gate
            was not run. Later verdicts are stored next to the release (`verdicts.py`).
    """

    release_id: str
    published_at: str
    data: DataEntry
    models: tuple[ModelEntry, ...]
    evaluation: Mapping[str, Any]
    library_versions: Mapping[str, str]
    files: Mapping[str, FileEntry]
    schema_version: int = field(default=SCHEMA_VERSION)
    feedback_position: int = 0
    feedback_mark: str = ""
    gate: Verdict | None = None

    def to_json(self) -> str:
        """Returns the manifest as JSON; the field `gate` is omitted if there is no verdict."""
        values = asdict(self)
        if self.gate is None:
            del values["gate"]
        return json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"


def check_release_id(release_id: object) -> str:
    """Checks that a release id is safe to use as a folder name, and returns it.

    Raises:
        ArtifactError: The id is empty, too long, or contains characters that are not allowed.
    """
    if not isinstance(release_id, str) or not _RELEASE_ID.fullmatch(release_id):
        raise ArtifactError(f"not a release id: {release_id!r}")
    return release_id


def hash_file(path: Path) -> FileEntry:
    """Returns the SHA-256 and size of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(digest.hexdigest(), size)


def hash_folder(folder: Path) -> dict[str, FileEntry]:
    """Returns the digest and size of each file in a folder, recursively, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest_of(files: Mapping[str, FileEntry], prefix: str = "") -> str:
    """Returns the SHA-256, in hexadecimal, of the paths and digests of files with a prefix."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.startswith(prefix):
            digest.update(f"{path} {files[path].sha256}\n".encode())
    return digest.hexdigest()


def new_release_id(files: Mapping[str, FileEntry], now: datetime) -> str:
    """Creates a release id that sorts by time.

    The id consists of the time in seconds and of a digest of the files and the exact time, so
    releases with the same files get different ids even if they are created in the same second.
    """
    digest = hashlib.sha256(f"{digest_of(files)} {now.isoformat()}".encode())
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest.hexdigest()[:8]}"
