"""Decides which release is in service, and when a promoted release comes into service.

First, `server/releases/follower.py` detects the promotion and loads the release into this process.
The backends do the same. Once all of them have loaded it, `Releases.update` puts it in service.
`main.py` calls `update` periodically.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from marquee_core.errors import ArtifactError
from marquee_core.redaction import redact
from marquee_core.release.manifest import Manifest
from marquee_core.release.storage import Storage
from marquee_core.release.verdict import Verdict
from marquee_core.release.verdicts import latest_verdict
from marquee_services.errors import NoRelease, PageTokenExpired, ReleaseNotFound
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.gateway.releases.answer_watch import AnswerWatch
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.releases.follower import ReleaseFollower

_log = structlog.get_logger()


class Releases:
    """Holds the loaded releases, and selects the one in service.

    The gateway switches to a promoted release once every healthy backend of the release has loaded
    it, so a promotion never degrades an answer. A release that a backend refuses to load does not
    come into service while another one is served. The gateway returns to the previous release if
    too many answers of the release in service are empty, or if a backend withdraws it because
    requests fail.

    Attributes:
        pending_reason: Why the promoted release is not in service yet; "" if it is.
        has_feedback_for: Returns whether all feedback since a release's training has been read, so
            that a switch to the release loses none.
        verdict: The promotion gate's verdict on the release in service, as last read; None if there
            is none.
    """

    def __init__(
        self, follower: ReleaseFollower[GatewayRelease], backends: Iterable[AnyBackend]
    ) -> None:
        """Creates the object, without a release in service.

        Args:
            follower: Loads promoted releases into this process.
            backends: The backends that must have loaded a release before it comes into service.
        """
        self._follower = follower
        self._backends = tuple(backends)
        self._serving: GatewayRelease | None = None
        self._answers = AnswerWatch()
        self.pending_reason = ""
        self.verdict: Verdict | None = None
        self.has_feedback_for: Callable[[Manifest], bool] = lambda _: True

    @property
    def held(self) -> list[GatewayRelease]:
        """The releases that may answer: the loaded ones and the one in service."""
        loaded, serving = self.loaded, self._serving
        return loaded if serving is None or serving in loaded else [*loaded, serving]

    @property
    def loaded(self) -> list[GatewayRelease]:
        """The loaded releases, newest first; a request may name any of them."""
        return self._follower.releases

    @property
    def store_error(self) -> str:
        """Why the last read of the store failed; "" if it succeeded."""
        return self._follower.store_error

    @property
    def serving(self) -> GatewayRelease:
        """The release in service.

        Raises:
            NoRelease: No release is in service yet.
        """
        if self._serving is None:
            raise NoRelease("no release is in service yet")
        return self._serving

    def serving_publication(self) -> tuple[str, str] | None:
        """Returns the release in service and its time of publication (RFC 3339), or None."""
        if self._serving is None:
            return None
        return self._serving.release_id, self._serving.manifest.published_at

    def pick(self, release_id: str) -> GatewayRelease:
        """Returns the release with the given id; for "" the one in service.

        Raises:
            ReleaseNotFound: No release with that id is loaded.
            NoRelease: No release is in service yet.
        """
        return self._follower.get(release_id) if release_id else self.serving

    def of_page_token(self, release_id: str) -> GatewayRelease:
        """Returns the release in a page token, which ranked the first page.

        Raises:
            PageTokenExpired: That release is no longer loaded.
            NoRelease: The token names no release, and none is in service yet.
        """
        try:
            return self.pick(release_id)
        except ReleaseNotFound:
            raise PageTokenExpired(release_id) from None

    def count_answer(self, release: GatewayRelease, is_empty: bool) -> None:
        """Counts a computed answer, so that a release with many empty ones is withdrawn.

        Args:
            release: The release that answered.
            is_empty: Whether the answer has no items although the request excludes none.
        """
        self._answers.add(release.release_id, is_empty)

    def update(self) -> GatewayRelease | None:
        """Puts the newest loaded release in service if every backend is ready for it.

        Returns:
            The release that has just come into service; None if nothing has changed.
        """
        if self._serving is not None:
            self._follower.mark_used(self._serving.release_id)
        self._withdraw_if_empty()
        self.pending_reason = self._find_pending_reason()
        if self._serving is not None and self._is_withdrawn(self._serving):
            return self._roll_back(self._serving)
        if not self._follower.releases or (self.pending_reason and self._serving is not None):
            return None
        newest = self._follower.newest()
        if newest is self._serving:
            return None
        self._answers.start("" if self._serving is None else self._serving.release_id)
        self._serve(newest)
        _log.info("release_in_service", release_id=newest.release_id)
        return newest

    async def read_verdict(self, storage: Storage) -> None:
        """Reads the latest verdict of the gate on the release in service.

        Args:
            storage: The files of the store.

        Raises:
            NoRelease: No release is in service yet.
        """
        release = self.serving
        try:
            verdict = await asyncio.to_thread(latest_verdict, storage, release.manifest)
        except (ArtifactError, OSError) as error:
            why = redact(str(error))
            _log.warning("verdict_unreadable", release_id=release.release_id, why=why)
            return
        if release is self._serving:
            self.verdict = verdict

    def _serve(self, release: GatewayRelease) -> None:
        self._serving, self.verdict = release, release.manifest.gate

    def _withdraw_if_empty(self) -> None:
        """Withdraws the release in service if too many of its answers are empty."""
        if self._serving is not None:
            why = self._answers.verdict(self._serving.release_id)
            if why:
                self._follower.withdraw(self._serving.release_id, why)

    def _is_withdrawn(self, release: GatewayRelease) -> bool:
        """Returns whether the gateway or a backend has withdrawn a loaded release."""
        return release.release_id in self._follower.refused or any(
            backend.healthy and release.release_id in backend.refused
            for backend in self._backends
            if backend.name in release.backends
        )

    def _roll_back(self, withdrawn: GatewayRelease) -> GatewayRelease | None:
        """Puts the most recently promoted release in service that all backends have loaded."""
        for release in self._follower.releases:
            if release is withdrawn or self._is_withdrawn(release):
                continue
            if not self._follower.has_promoted(release.release_id):
                continue  # It was loaded for an experiment, and never promoted.
            required = [b for b in self._backends if b.name in release.backends and b.healthy]
            if all(release.release_id in backend.releases for backend in required):
                self._serve(release)
                _log.error(
                    "release_withdrawn",
                    release_id=withdrawn.release_id,
                    why=self.pending_reason,
                    in_service=release.release_id,
                )
                return release
        return None

    def _find_pending_reason(self) -> str:
        promoted = self._follower.promoted_id
        if promoted in self._follower.refused:
            return f"the gateway refused {promoted}: {self._follower.refused[promoted]}"
        if not self._follower.releases:
            return "no release has been promoted" if not promoted else f"{promoted} is being loaded"
        newest = self._follower.newest()
        if newest.release_id != promoted:
            return f"{promoted} is being loaded"
        required = [b for b in self._backends if b.name in newest.backends and b.healthy]
        for backend in required:
            if promoted in backend.refused:
                return f"{backend.name} refused {promoted}: {backend.refused[promoted]}"
        if self._serving is None or newest is self._serving:
            return ""
        for backend in required:
            if promoted not in backend.releases:
                return f"{backend.name} has not loaded {promoted} yet"
        if not self.has_feedback_for(newest.manifest):
            return f"the feedback since the training of {promoted} is being read"
        return ""
