"""Logs what a server finds when it polls the release store."""

from __future__ import annotations

import structlog

from marquee_core.errors import ArtifactError
from marquee_core.redaction import redact


class PollLog:
    """Logs polls, and a store without a promoted release once."""

    def __init__(self, part: str = "", warns: bool = True) -> None:
        """Creates the log.

        Args:
            part: The part of the server that polls, where a process has several.
            warns: Whether to warn of a store without a promoted release; one part is enough.
        """
        self._log = structlog.get_logger(**({"part": part} if part else {}))
        self._is_to_warn = warns

    def failed(self, error: Exception) -> None:
        """A poll failed; a traceback is logged only for an error that was not to be expected."""
        if isinstance(error, OSError | ArtifactError):
            self._log.error("release_poll_failed", why=redact(str(error)) or type(error).__name__)
        else:
            self._log.error("release_poll_failed", exc_info=error)

    def nothing_promoted(self, store: str) -> None:
        """The store can be read, but no release in it has been promoted yet.

        Args:
            store: Its URL, without a password.
        """
        if self._is_to_warn:
            self._log.warning("no_release_promoted", store=store)
        self._is_to_warn = False

    def loaded(self, release_id: str) -> None:
        """A release was loaded."""
        self._log.info("release_loaded", release_id=release_id)
