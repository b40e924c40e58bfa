"""Follows the promoted release: verify, load, warm, swap; on failure the last good one stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import structlog

from marquee_core.errors import ArtifactError
from marquee_core.release.store import ReleaseStore
from marquee_services.errors import NoRelease, ReleaseNotFound
from marquee_services.server.heap import return_free_memory

_log = structlog.get_logger()
_RETRY_LIMIT_S = 60.0


class LoadedRelease(Protocol):
    """Anything that a server makes of a release."""

    @property
    def release_id(self) -> str:
        """The release's id."""


_R = TypeVar("_R", bound=LoadedRelease)


class ReleaseFollower(Generic[_R]):
    """Keeps the promoted release and others that are still asked for loaded.

    Requests hold on to the release that they began with, so a swap never pulls one from under
    them; what is no longer kept is freed when its last request ends. A server that starts while
    the promoted release is refused serves the last one in service before it that can be loaded.

    Attributes:
        refused: Why releases could not be loaded, by id: the promoted one, and those in service
            before it.
        wanted: The id that the store names as production, "" before the first look.
    """

    def __init__(
        self,
        store: ReleaseStore,
        load: Callable[[str], _R],
        interval: float,
        keep: int,
        on_change: Callable[[_R], None] = lambda _: None,
    ) -> None:
        """Takes what is followed.

        Args:
            store: The release store.
            load: Opens, verifies and warms a release; runs in a thread of its own.
            interval: Seconds between looks at the store.
            keep: How many releases are held at once, at least 2: beside the promoted one, that
                which callers use until all can use the promoted one.
            on_change: Called in the event loop after each release that was loaded.
        """
        self._store = store
        self._load = load
        self._interval = interval
        self._keep = keep
        self._on_change = on_change
        self._loaded: dict[str, _R] = {}  # newest last
        self._used: dict[str, float] = {}  # when each was asked for last
        # One thread: loading never competes with itself, nor with the scoring threads.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="release-loader")
        self.refused: dict[str, str] = {}
        self.wanted = ""

    @property
    def releases(self) -> list[_R]:
        """The loaded releases, most recently promoted first."""
        return list(reversed(self._loaded.values()))

    def get(self, release_id: str) -> _R:
        """A loaded release by id; the longest unused is the first to go.

        Raises:
            ReleaseNotFound: It is not loaded.
        """
        if release_id not in self._loaded:
            raise ReleaseNotFound(release_id)
        self.touch(release_id)
        return self._loaded[release_id]

    def touch(self, release_id: str) -> None:
        """Counts a release as asked for, if it is loaded."""
        if release_id in self._loaded:
            self._used[release_id] = time.monotonic()

    def newest(self) -> _R:
        """The release that was promoted last, of those that could be loaded.

        Raises:
            NoRelease: None has been loaded.
        """
        if not self._loaded:
            raise NoRelease
        return next(reversed(self._loaded.values()))

    async def follow(self) -> None:
        """Looks at the store again and again, until cancelled; no failure ends it."""
        pause = self._interval
        while True:
            try:
                await self.look()
                pause = self._interval
            except Exception as error:
                # The store is away, or a defect: either way what is loaded goes on serving.
                _log.error("release_look_failed", exc_info=error)
                pause = min(max(pause, self._interval) * 2, _RETRY_LIMIT_S)
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Looks once, and loads the promoted release if it is new.

        A release that is refused is not tried again until it is promoted anew.

        Raises:
            ArtifactError: The store's pointer is damaged.
            OSError: The store cannot be read.
        """
        loop = asyncio.get_running_loop()
        production = await loop.run_in_executor(self._thread, self._store.production)
        if production is None:
            return
        release_id = production.release_id
        if release_id != self.wanted:
            # A release that is promoted anew gets a new chance.
            before = set(production.history) - {release_id}
            self.refused = {name: why for name, why in self.refused.items() if name in before}
            self.wanted = release_id
        if release_id in self._loaded:
            if self.newest().release_id != release_id:
                self._swap(self._loaded.pop(release_id))
            return
        for candidate in (release_id, *production.history):
            if candidate not in self.refused:
                await self._try(candidate)
            if self._loaded:
                return

    async def _try(self, release_id: str) -> None:
        """Loads a release, or refuses it for good: what is damaged does not heal."""
        loop = asyncio.get_running_loop()
        try:
            release = await loop.run_in_executor(self._thread, self._load, release_id)
        except FileNotFoundError as error:
            self._refuse(release_id, f"it lacks a file: {error}")
        except (OSError, MemoryError):
            raise
        except ArtifactError as error:
            self._refuse(release_id, str(error))
        except Exception as error:
            self._refuse(release_id, f"it cannot be read: {error!r}", error)
        else:
            self._swap(release)
            await loop.run_in_executor(self._thread, return_free_memory)

    def _refuse(self, release_id: str, why: str, defect: Exception | None = None) -> None:
        self.refused[release_id] = why
        _log.error("release_refused", release_id=release_id, why=why, exc_info=defect)

    def _swap(self, release: _R) -> None:
        self._loaded[release.release_id] = release
        self.touch(release.release_id)
        while len(self._loaded) > self._keep:
            others = list(self._loaded)[:-1]
            gone = min(others, key=self._used.__getitem__)
            del self._loaded[gone], self._used[gone]
        _log.info("release_loaded", release_id=release.release_id)
        self._on_change(release)
