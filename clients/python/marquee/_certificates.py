"""The certificates of a TLS connection, which are reloaded when their files change."""

from __future__ import annotations

import os
import time
from pathlib import Path

from marquee._options import TLS

# The minimum number of seconds between two checks of the files.
_CHECK_INTERVAL_S = 2.0


class Certificates:
    """The contents of the files that a `TLS` names.

    Attributes:
        pems: The authorities, the key and the certificate chain; None for those not given.
        version: The number of times that the contents have changed.
    """

    def __init__(self, tls: TLS) -> None:
        """Reads the files.

        Raises:
            OSError: A file cannot be read.
        """
        self._sources = (tls.ca, tls.key, tls.cert)
        self._seen = self._stamps()
        self._next_check = time.monotonic() + _CHECK_INTERVAL_S
        self.pems = tuple(map(_read, self._sources))
        self.version = 0

    def refresh(self) -> int:
        """Reloads the files if they have changed, at most once every two seconds.

        If the new contents cannot be used, for example because only one of two files has been
        replaced so far, a warning is logged and the current contents stay in use.

        Returns:
            The version of the contents.
        """
        now = time.monotonic()
        if now < self._next_check:
            return self.version
        self._next_check = now + _CHECK_INTERVAL_S
        stamps = self._stamps()
        if stamps == self._seen:
            return self.version
        self._seen = stamps
        try:
            self._check()
            pems = tuple(map(_read, self._sources))
        except OSError as error:  # includes ssl.SSLError
            import logging

            logging.getLogger("marquee").warning(
                "the renewed certificates cannot be used: %s", error
            )
            return self.version
        if pems != self.pems:
            self.pems = pems
            self.version += 1
        return self.version

    def _check(self) -> None:
        """Checks that the files contain certificates, and that the key matches the certificate.

        Raises:
            OSError: They do not, or a file cannot be read.
        """
        import ssl  # imported here, because it is rarely needed and slow to import

        ca, key, certificate = self._sources
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if isinstance(ca, str | Path):
            context.load_verify_locations(ca)
        if isinstance(certificate, str | Path) and isinstance(key, str | Path):
            context.load_cert_chain(certificate, key)

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(source) for source in self._sources]


def _stamp(source: str | Path | bytes | None) -> tuple[int, int, int] | None:
    """Returns a value that changes when a file is written or replaced; None if it is not a file."""
    if source is None or isinstance(source, bytes):
        return None
    try:
        found = os.stat(source)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(source: str | Path | bytes | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else Path(source).read_bytes()
