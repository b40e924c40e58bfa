"""Which releases the gateway answers with."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from marquee_services.errors import NoRelease, PageTokenExpired, ReleaseNotFound
from marquee_services.gateway.backends.backend import Backend
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.follower import ReleaseFollower

_log = structlog.get_logger()


class Releases:
    """Picks the release in service: the promoted one, once every backend that is there holds it.

    So a promotion never makes an answer degraded, and a release that any backend refuses never
    comes into service while another is there.

    Attributes:
        pending_reason: Why the release that the store names is not in service; "" when it is.
    """

    def __init__(
        self, follower: ReleaseFollower[GatewayRelease], backends: Iterable[Backend]
    ) -> None:
        """Takes the gateway's own follower, and the backends."""
        self._follower = follower
        self._backends = tuple(backends)
        self._serving: GatewayRelease | None = None
        self.pending_reason = ""

    @property
    def loaded(self) -> list[GatewayRelease]:
        """The releases that a request may name, newest first."""
        return self._follower.releases

    @property
    def serving(self) -> GatewayRelease:
        """The release in service.

        Raises:
            NoRelease: None is loaded yet.
        """
        if self._serving is None:
            raise NoRelease
        return self._serving

    def pick(self, release_id: str) -> GatewayRelease:
        """The release of that id; the one in service for "".

        Raises:
            ReleaseNotFound: It is not loaded.
            NoRelease: None is loaded yet.
        """
        return self._follower.get(release_id) if release_id else self.serving

    def of_page(self, release_id: str) -> GatewayRelease:
        """The release that a further page is cut from, as the first one was.

        Raises:
            PageTokenExpired: It is loaded no longer.
        """
        try:
            return self.pick(release_id)
        except ReleaseNotFound:
            raise PageTokenExpired(release_id) from None

    def update(self) -> bool:
        """Looks again which release is to be in service; True when another is now."""
        if self._serving is not None:
            self._follower.touch(self._serving.release_id)
        self.pending_reason = self._pending()
        if not self._follower.releases or (self.pending_reason and self._serving is not None):
            return False
        newest = self._follower.newest()
        if newest is self._serving:
            return False
        self._serving = newest
        for backend in self._backends:
            backend.release_in_service = newest.release_id
        _log.info("release_in_service", release_id=newest.release_id)
        return True

    def _pending(self) -> str:
        wanted = self._follower.wanted
        if wanted in self._follower.refused:
            return f"the gateway refused {wanted}: {self._follower.refused[wanted]}"
        if not self._follower.releases:
            return "no release has been promoted" if not wanted else f"{wanted} is being loaded"
        newest = self._follower.newest()
        if newest.release_id != wanted:
            return f"{wanted} is being loaded"
        if self._serving is None or newest is self._serving:
            return ""
        for backend in self._backends:
            if backend.name not in newest.backends or not backend.healthy:
                continue
            if wanted in backend.refused:
                return f"{backend.name} refused {wanted}: {backend.refused[wanted]}"
            if wanted not in backend.releases:
                return f"{backend.name} does not hold {wanted} yet"
        return ""
