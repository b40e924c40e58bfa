"""Where lists are written: the parts of a folder, or one file; on disk, or by URL (fsspec)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from marquee_core.release.storage import PARTIAL, Storage

SUFFIX = ".parquet"
_PLACE = "*"
# Folder of the parts of a single file, beside it, until all are there.
_PARTS = ".{}.parts"


class OutputError(ValueError):
    """The place to write to cannot be used."""


@dataclass(frozen=True)
class Output:
    """The files of a run.

    Attributes:
        folder: The folder or URL of the parts.
        prefix: What their names begin with.
        suffix: What their names end with.
        file: The single file that the parts become, as a name beside `folder`; "" for none.
    """

    folder: str
    prefix: str
    suffix: str
    file: str = ""

    @classmethod
    def parse(cls, out: str) -> Output:
        """Reads the argument of `--out`.

        Args:
            out: A folder; a pattern such as `s3://bucket/lists/*.parquet`, in which `*` stands for
                the number of a part; or a file that ends in `.parquet`.

        Raises:
            OutputError: The pattern has more than one `*`, or has it in a folder.
        """
        parent, slash, name = out.rpartition("/")
        if _PLACE in parent or name.count(_PLACE) > 1:
            raise OutputError(f"{out}: one * is allowed, in the name of the files")
        # The root of a file system, or the current folder.
        root = parent or slash or "."
        if _PLACE in name:
            if not name.endswith(SUFFIX):
                raise OutputError(f"{out}: the name of the files must end in {SUFFIX}")
            prefix, _, suffix = name.partition(_PLACE)
            return cls(root, prefix, suffix)
        if name.endswith(SUFFIX):
            return cls(f"{root.rstrip('/')}/{_PARTS.format(name)}", "part-", SUFFIX, name)
        return cls(out.rstrip("/") or slash, "part-", SUFFIX)

    @cached_property
    def storage(self) -> Storage:
        """Reads and writes the parts.

        Raises:
            StoreURLError: The URL cannot be used.
        """
        return Storage(self.folder)

    @cached_property
    def beside(self) -> Storage:
        """Reads and writes the single file."""
        return Storage(self.folder.rpartition("/")[0] or "/")

    def name(self, number: int) -> str:
        """Returns the name of a part."""
        return f"{self.prefix}{number:05d}{self.suffix}"

    def others(self, count: int) -> list[str]:
        """Files that look like parts, and are none of the first `count`.

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
        """Returns the unfinished files in the folder; none in object storage, where there are no such.

        Raises:
            OSError: The folder cannot be read.
        """
        if not self.storage.is_local:
            return set()
        return {name for name in self.storage.names("") if name.startswith(PARTIAL)}

    def remove(self, name: str) -> None:
        """Removes a file from the folder.

        Raises:
            OSError: It cannot be removed.
        """
        self.storage.call(self.storage.fs.rm_file, self.storage.path(name))
