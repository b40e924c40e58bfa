"""Bearer tokens from a file that is rotated, such as a projected service account token."""

from __future__ import annotations

import os
from pathlib import Path


class TokenFile:
    """Returns the token in a file, which is reloaded when the file changes.

        client = Client("gateway:50051", tls=True, token=TokenFile("/var/run/secrets/token"))

    Args:
        path: The file; white space around the token is ignored.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int, int] | None = None
        self._token = ""
        self()

    def __call__(self) -> str:
        """Returns the current token.

        Raises:
            OSError: The file cannot be read.
        """
        found = os.stat(self._path)
        stamp = found.st_mtime_ns, found.st_size, found.st_ino
        if stamp != self._stamp:
            self._token = self._path.read_text().strip()
            self._stamp = stamp
        return self._token

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"
