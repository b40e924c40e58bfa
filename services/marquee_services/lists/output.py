"""The files of lists: the parts in a folder, or a single file; on disk or at a URL (fsspec)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from marquee_core.release.storage import PARTIAL, Storage

SUFFIX = ".parquet"
_WILDCARD = "*"
# `marquee batch --out` writes these too, if a gateway answers.
_OTHER_FORMATS = (".csv", ".jsonl")
# The folder next to a single file in which its parts are collected until all are complete.
_PARTS = ".{}.parts"


class OutputError(ValueError):
    """The output cannot be used."""


@dataclass(frozen=True)
class ListFiles:
    """The files of a run.

    Attributes:
        folder: The folder or URL of the parts.
        prefix: The beginning of the parts' names.
        suffix: The end of the parts' names.
        file: The name of the single file, next to `folder`, into which the parts are joined; "" to
            keep the parts.
    """

    folder: str
    prefix: str
    suffix: str
    file: str = ""

    @classmethod
    def parse(cls, out: str) -> ListFiles:
        """Parses the argument of `--out`.

        Args:
            out: A folder; a pattern such as `s3://bucket/lists/*.parquet`, in which `*` stands for
                the number of a part; or a file that ends in `.parquet`.

        Raises:
            OutputError: The pattern has more than one `*`, has one in a folder, or does not end in
                `.parquet`; or the name of a file ends in the suffix of another format.
        """
        parent, slash, name = out.rpartition("/")
        if _WILDCARD in parent or name.count(_WILDCARD) > 1:
            raise OutputError(f"{out}: only one * is allowed, in the name of the files")
        # The root of a file system, or the current folder.
        root = parent or slash or "."
        if _WILDCARD in name:
            if not name.endswith(SUFFIX):
                raise OutputError(f"{out}: the name of the files must end in {SUFFIX}")
            prefix, _, suffix = name.partition(_WILDCARD)
            return cls(root, prefix, suffix)
        if name.endswith(SUFFIX):
            return cls(f"{root.rstrip('/')}/{_PARTS.format(name)}", "part-", SUFFIX, name)
        if name.endswith(_OTHER_FORMATS):
            raise OutputError(
                f"{out}: lists computed from a store are written as Parquet: give a folder, or a "
                f"name that ends in {SUFFIX}"
            )
        return cls(out.rstrip("/") or slash, "part-", SUFFIX)

    @cached_property
    def storage(self) -> Storage:
        """The storage of the parts.

        Raises:
            StoreURLError: The URL cannot be used.
        """
        return Storage(self.folder)

    @cached_property
    def file_storage(self) -> Storage:
        """The storage of the single file; meaningless if `file` is ""."""
        return Storage(self.folder.rpartition("/")[0] or "/")

    def name(self, number: int) -> str:
        """Returns the name of a part; the first has the number 0."""
        return f"{self.prefix}{number:05d}{self.suffix}"

    def others(self, count: int) -> list[str]:
        """Returns files that look like parts, other than the first `count` parts.

        Raises:
            OSError: The folder cannot be read.
        """
        own = {self.name(number) for number in range(count)}
        return [
            name
            for name in self.storage.names("")
            if name.startswith(self.prefix) and name.endswith(self.suffix) and name not in own
        ]

    def unfinished(self) -> set[str]:
        """Returns the unfinished files in the folder; object storage never has any.

        Raises:
            OSError: The folder cannot be read.
        """
        if not self.storage.is_local:
            return set()
        return {name for name in self.storage.names("") if name.startswith(PARTIAL)}

    def remove(self, name: str) -> None:
        """Removes a file from the folder.

        Raises:
            OSError: The file cannot be removed.
        """
        self.storage.call(self.storage.fs.rm_file, self.storage.path(name))
