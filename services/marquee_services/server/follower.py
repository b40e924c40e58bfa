"""Keeps the promoted release loaded: polls the store, then verifies, loads and swaps releases.

If a release cannot be loaded, the last good one stays in service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import structlog

from marquee_core.errors import ArtifactError
from marquee_core.redaction import redact
from marquee_core.release.store import ReleaseStore
from marquee_services.errors import NoRelease, ReleaseNotFound
from marquee_services.server.heap import return_free_memory

_log = structlog.get_logger()
_MAX_RETRY_S = 60.0


class LoadedRelease(Protocol):
    """A release as a server holds it in memory."""

    @property
    def release_id(self) -> str:
        """The release's id."""


_R = TypeVar("_R", bound=LoadedRelease)


class ReleaseFollower(Generic[_R]):
    """Holds the promoted release and the releases that callers still use.

    A request keeps its own reference to the release that it began with, so a swap never affects
    it. A release that the follower drops is freed when its last request ends.

    A server that starts while the promoted release is refused falls back to the latest release in
    the promotion history that it can load.

    Attributes:
        refused: Why releases could not be loaded, by release id. Holds the promoted release and
            those in its history.
        promoted_id: The release that the store names as production; "" before the first poll.
        refusals: How often a release was refused.
        failed_polls: How often the store could not be polled.
        last_poll: When the store was last polled successfully, in seconds since 1970; 0 for never.
    """

    def __init__(
        self,
        store: ReleaseStore,
        load: Callable[[str], _R],
        interval: float,
        keep: int,
        on_change: Callable[[_R], None] = lambda _: None,
    ) -> None:
        """Takes the store to follow and how to load its releases.

        Args:
            store: The release store.
            load: Opens, verifies and warms up a release by id. Called in a background thread.
            interval: Seconds between polls of the store.
            keep: Most releases to hold at once, at least 2: the promoted one, and the one that
                callers use until all of them can switch.
            on_change: Called in the event loop whenever the newest release changes.
        """
        self._store = store
        self._load = load
        self._interval = interval
        self._keep = keep
        self._on_change = on_change
        self._loaded: dict[str, _R] = {}  # in order of promotion, the newest last
        self._last_used: dict[str, float] = {}
        # A thread of its own: loading must not hold up the threads that score.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="release-loader")
        self.refused: dict[str, str] = {}
        self.promoted_id = ""
        self.refusals = 0
        self.failed_polls = 0
        self.last_poll = 0.0

    @property
    def releases(self) -> list[_R]:
        """The loaded releases, the most recently promoted first."""
        return list(reversed(self._loaded.values()))

    def get(self, release_id: str) -> _R:
        """Returns a loaded release, and marks it as used.

        Raises:
            ReleaseNotFound: The release is not loaded.
        """
        if release_id not in self._loaded:
            raise ReleaseNotFound(release_id)
        self.mark_used(release_id)
        return self._loaded[release_id]

    def mark_used(self, release_id: str) -> None:
        """Records that a release is in use; the one unused for longest is dropped first."""
        if release_id in self._loaded:
            self._last_used[release_id] = time.monotonic()

    def newest(self) -> _R:
        """The most recently promoted of the loaded releases.

        Raises:
            NoRelease: No release has been loaded yet.
        """
        if not self._loaded:
            raise NoRelease
        return next(reversed(self._loaded.values()))

    async def follow(self) -> None:
        """Polls the store until cancelled; after errors it polls less and less often."""
        pause = self._interval
        while True:
            try:
                await self.poll()
                self.last_poll = time.time()
                pause = self._interval
            except Exception as error:
                # The loaded releases stay in service, whatever the error.
                self.failed_polls += 1
                _log.error("release_poll_failed", exc_info=error)
                pause = min(max(pause, self._interval) * 2, _MAX_RETRY_S)
            await asyncio.sleep(pause)

    async def poll(self) -> None:
        """Reads which release is promoted, and loads it if it is new.

        A refused release is tried again only when it is promoted again.

        Raises:
            ArtifactError: The store's production pointer is damaged.
            OSError: The store cannot be read.
        """
        loop = asyncio.get_running_loop()
        production = await loop.run_in_executor(self._thread, self._store.production)
        if production is None:
            return
        release_id = production.release_id
        if release_id != self.promoted_id:
            # A newly promoted release gets another try, even if it was refused before.
            history = set(production.history) - {release_id}
            self.refused = {name: why for name, why in self.refused.items() if name in history}
            self.promoted_id = release_id
        if release_id in self._loaded:
            if self.newest().release_id != release_id:
                self._make_newest(self._loaded.pop(release_id))
            return
        for candidate in (release_id, *production.history):
            if candidate not in self.refused:
                await self._load_or_refuse(candidate)
            if self._loaded:
                return

    async def _load_or_refuse(self, release_id: str) -> None:
        """Loads a release, or refuses it if it is damaged.

        Raises:
            OSError: The store cannot be read; the next poll tries again.
            MemoryError: There is not enough memory; the next poll tries again.
        """
        loop = asyncio.get_running_loop()
        try:
            release = await loop.run_in_executor(self._thread, self._load, release_id)
        except FileNotFoundError as error:
            self._refuse(release_id, f"a file is missing: {error}")
        except (OSError, MemoryError):
            raise
        except ArtifactError as error:
            self._refuse(release_id, str(error))
        except Exception as error:
            self._refuse(release_id, f"the release cannot be loaded: {error!r}", error)
        else:
            self._make_newest(release)
            await loop.run_in_executor(self._thread, return_free_memory)

    def _refuse(self, release_id: str, why: str, error: Exception | None = None) -> None:
        # Reasons are told to callers.
        why = redact(why)
        self.refused[release_id] = why
        self.refusals += 1
        _log.error("release_refused", release_id=release_id, why=why, exc_info=error)

    def _make_newest(self, release: _R) -> None:
        """Adds a release as the newest, and drops others beyond the limit."""
        self._loaded[release.release_id] = release
        self.mark_used(release.release_id)
        while len(self._loaded) > self._keep:
            others = list(self._loaded)[:-1]
            dropped = min(others, key=self._last_used.__getitem__)
            del self._loaded[dropped], self._last_used[dropped]
        _log.info("release_loaded", release_id=release.release_id)
        self._on_change(release)
