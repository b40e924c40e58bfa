"""Logs the results of polling the release store."""

from __future__ import annotations

import structlog

from marquee_core.errors import ArtifactError
from marquee_core.redaction import redact


class PollLog:
    """Logs polls; warns only once about a store without a promoted release."""

    def __init__(self, part: str = "", warns: bool = True) -> None:
        """Creates the log.

        Args:
            part: The part of the server that polls, if the process has several.
            warns: Whether to warn about a store without a promoted release; one part is enough.
        """
        self._log = structlog.get_logger(**({"part": part} if part else {}))
        self._is_to_warn = warns

    def failed(self, error: Exception) -> None:
        """Logs a failed poll, with a traceback if the error is unexpected."""
        if isinstance(error, OSError | ArtifactError):
            self._log.error("release_poll_failed", why=redact(str(error)) or type(error).__name__)
        else:
            self._log.error("release_poll_failed", exc_info=error)

    def nothing_promoted(self, store: str) -> None:
        """Warns that the store can be read, but contains no promoted release yet.

        Args:
            store: The URL of the store, without a password.
        """
        if self._is_to_warn:
            self._log.warning("no_release_promoted", store=store)
        self._is_to_warn = False

    def loaded(self, release_id: str) -> None:
        """Logs that a release was loaded."""
        self._log.info("release_loaded", release_id=release_id)
