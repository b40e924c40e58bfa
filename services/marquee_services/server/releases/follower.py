"""Keeps the promoted release loaded: polls the store, and verifies, loads and switches releases.

If a release cannot be loaded, the last good one stays in service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from marquee_core.errors import ArtifactError
from marquee_core.redaction import redact
from marquee_core.release.copies import ReleaseCopies
from marquee_core.release.store import ReleaseStore
from marquee_services.errors import ServiceError
from marquee_services.server.background import BackgroundThread
from marquee_services.server.heap import return_free_memory
from marquee_services.server.releases.experiments import FollowedExperiments
from marquee_services.server.releases.loaded_releases import LoadedReleases, R
from marquee_services.server.releases.poll_log import PollLog
from marquee_services.server.releases.refused_releases import RefusedReleases
from marquee_services.server.releases.trial import ReleaseTrial
from marquee_services.server.switch_interval import limit_switch_interval

_log = structlog.get_logger()
# Seconds between polls of a store that cannot be read.
_RETRY_S = 2.0
# How many releases of the history are tried if the promoted one cannot be loaded.
_MAX_CANDIDATES = 10
# The longest turn that a thread may hold the interpreter's lock while a release is loaded.
_LOADING_SWITCH_INTERVAL_S = 0.0001

_T = TypeVar("_T")


class ReleaseFollower(Generic[R]):
    """Holds the promoted release and the releases that callers still use.

    A request keeps a reference to the release that it began with, so a switch never affects it. A
    release that the follower drops is freed when its last request ends.

    A server that starts while the promoted release is refused falls back to the latest release in
    the promotion history that it can load.

    The releases of a running experiment are also loaded, and are held in addition to the others
    until the experiment ends.

    Attributes:
        experiments: The experiments of the store.
        promoted_id: The release that the store names as production; "" before the first poll.
        store_error: Why the last poll of the store failed; "" if it succeeded.
        damaged_copies: The number of damaged files that `scrub` has found.
        refusals: The number of times that a release was refused.
        failed_polls: The number of times that the store could not be polled.
        last_poll: When the store was last polled successfully, in seconds since 1970; 0 for never.
    """

    def __init__(
        self,
        store: ReleaseStore,
        load: Callable[[str], R],
        interval: float,
        keep: int,
        on_change: Callable[[R], None] = lambda _: None,
        copies: ReleaseCopies | None = None,
        scrub_interval: float = 0.0,
        trial: ReleaseTrial | None = None,
        with_experiments: bool = True,
        poll_log: PollLog | None = None,
        load_tried: Callable[[str], R] | None = None,
    ) -> None:
        """Creates a follower; nothing is read before `poll`.

        Args:
            store: The release store.
            load: Opens, verifies and warms up a release by id. Called in a background thread.
            interval: Seconds between polls of the store.
            keep: The most releases to hold at the same time, at least 2: the promoted one, and the
                one that callers use until all of them can switch.
            on_change: Called in the event loop whenever the newest release changes.
            copies: The server's copies of release files, which are held while a release is loaded;
                None if the releases are not loaded from copies.
            scrub_interval: Seconds between searches for damaged copies; 0 for no searches.
            trial: Loads a release in a separate process first; None for no trials. There is no
                trial either while the server has no other release to serve.
            with_experiments: Whether to load the releases of the running experiment.
            poll_log: Logs the polls; None to create a log without the name of a part.
            load_tried: Like `load`, for a release that has passed its trial: need not repeat the
                checks of the trial, which would delay calls; None to call `load`.
        """
        self._store = store
        self._poll_log = poll_log or PollLog()
        self._load = load
        self._load_tried = load_tried or load
        self._interval = interval
        self._keep = keep
        self._on_change = on_change
        self._loaded: LoadedReleases[R] = LoadedReleases()
        # A separate thread, so that loading does not block the threads that score.
        self._thread = BackgroundThread("release-loader")
        self._copies = copies
        self._trial = trial
        self._with_experiments = with_experiments
        self._has_alternative = False
        self._scrub_interval = scrub_interval
        self._refused = RefusedReleases()
        self._promotion = ("", "")
        self.experiments = FollowedExperiments(store)
        self.experiments.was_read = not with_experiments
        self.promoted_id = self.store_error = ""
        self.damaged_copies = self.refusals = self.failed_polls = 0
        self.last_poll = 0.0

    @property
    def refused(self) -> dict[str, str]:
        """Why releases, promoted or part of an experiment, could not be loaded, by id."""
        return self._refused.reasons

    @property
    def releases(self) -> list[R]:
        """The loaded releases, the most recently promoted first."""
        return self._loaded.newest_first

    def has_promoted(self, release_id: str) -> bool:
        """Returns whether a release is loaded because of a promotion, not only an experiment."""
        return self._loaded.is_promoted(release_id)

    def get(self, release_id: str) -> R:
        """Returns a loaded release, and marks it as used.

        Raises:
            ReleaseNotFound: The release is not loaded.
        """
        return self._loaded.get(release_id)

    def mark_used(self, release_id: str) -> None:
        """Records that a release is in use; the least recently used one is dropped first."""
        self._loaded.mark_used(release_id)

    def newest(self) -> R:
        """Returns the most recently promoted of the loaded releases.

        Raises:
            NoRelease: No release has been loaded yet.
        """
        return self._loaded.newest()

    async def follow(self) -> None:
        """Polls the store, and scrubs the copies of loaded releases, until cancelled."""
        next_scrub = time.monotonic() + self._scrub_interval
        while True:
            try:
                await self.poll()
                self.store_error = ""
                self.last_poll = time.time()
                if self._scrub_interval and time.monotonic() >= next_scrub:
                    await self.scrub()
                    next_scrub = time.monotonic() + self._scrub_interval
            except Exception as error:
                # The loaded releases stay in service after any error.
                if redact(str(error)) != self.store_error:
                    self._poll_log.failed(error)
                self.store_error = redact(str(error)) or type(error).__name__
                self.failed_polls += 1
            pause = max(self._interval, min(_RETRY_S, 2 * self._interval))
            await asyncio.sleep(pause if self.store_error else self._interval)

    async def poll(self) -> None:
        """Loads the promoted release if it is new, then the releases of a running experiment.

        A refused release is tried again when it is promoted again or its files in the store have
        changed; after a transient error, it is tried again every few seconds.

        Raises:
            ArtifactError: The store's production pointer is damaged or missing.
            OSError: The store cannot be read.
        """
        await self._poll_production()
        if self._loaded and self._with_experiments:
            await self._poll_experiment()

    async def _poll_production(self) -> None:
        production = await self._thread.run(self._store.production)
        if production is None:
            if self._loaded:
                # A lost volume looks like an empty folder.
                raise ArtifactError("the store no longer names a release in production")
            self._poll_log.nothing_promoted(self._store.storage.url)
            return
        release_id = production.release_id
        candidates = (release_id, *production.history[:_MAX_CANDIDATES])
        self._has_alternative = bool(self._loaded or production.history)
        promotion = (release_id, production.promoted_at)
        if promotion != self._promotion:
            # A newly promoted release is tried even if it was refused before.
            self._refused.keep({*candidates, *self.experiments.release_ids} - {release_id})
            self._promotion = promotion
            self.promoted_id = release_id
        if release_id in self._loaded:
            if self.newest().release_id != release_id:
                self._make_newest(self._loaded.get(release_id))
            return
        for candidate in candidates:
            if candidate not in self._refused or await self._should_retry(candidate):
                await self._load_or_refuse(candidate)
            if self._loaded:
                return

    async def _poll_experiment(self) -> None:
        """Reads the experiments, and loads the releases of the running one."""
        self._has_alternative = True
        if await self._thread.run(self.experiments.read):
            for release_id in self.experiments.release_ids - {self.promoted_id}:
                # When an experiment starts, its releases are tried even if refused before.
                self._refused.remove(release_id)
            self._drop_unused()
        for release_id in sorted(self.experiments.release_ids - set(self._loaded)):
            if release_id not in self._refused or await self._should_retry(release_id):
                await self._load_or_refuse(release_id, as_newest=False)

    async def watch_failures(self, release_id: str, call: Awaitable[_T]) -> _T:
        """Awaits a computation with a release, and withdraws the release if too many fail.

        A withdrawn release stays loaded, but counts as refused, so the gateways return to the
        previous release. Errors that the caller caused do not count.
        """
        watch = self._loaded.watch(release_id)
        try:
            result = await call
        except (ServiceError, TimeoutError):
            raise
        except Exception as error:
            if watch is not None:
                watch.add(error)
                if why := watch.verdict():
                    self.withdraw(release_id, why)
            raise
        finally:
            del call  # A failed future, its error and this frame would keep one another in memory.
        if watch is not None:
            watch.add(None)
        return result

    def withdraw(self, release_id: str, why: str) -> None:
        """Refuses a loaded release for a reason, if another promoted release is loaded."""
        if self._loaded.other_promoted(release_id) and release_id not in self._refused:
            self.refusals += 1
            _log.error("release_withdrawn", release_id=release_id, why=why)
            self._refused.add(release_id, why, "")

    async def settle(self) -> None:
        """Waits until no call of the background thread is in progress."""
        await self._thread.run(lambda: None)

    async def scrub(self) -> None:
        """Compares the copies of the loaded releases with their digests.

        A damaged copy is fetched from the store again, and the release is loaded from it. If that
        fails, the release is refused, and stays in service only until another can be loaded.
        """
        for release_id in list(self._loaded):
            if self._copies is None:
                return
            damaged = await self._thread.run(self._copies.damaged, release_id)
            if not damaged:
                continue
            self.damaged_copies += len(damaged)
            _log.error("release_copy_damaged", release_id=release_id, files=damaged)
            release = await self._load_or_refuse(release_id, replace=True)
            if release is None:
                await self._replace_damaged(release_id)

    async def _replace_damaged(self, release_id: str) -> None:
        """Drops a release whose copy is damaged, if another promoted release can be loaded."""
        if not self._loaded.other_promoted(release_id):
            production = await self._thread.run(self._store.production)
            history = production.history[:_MAX_CANDIDATES] if production else ()
            for candidate in history:
                if candidate not in self._refused and await self._load_or_refuse(candidate):
                    self._drop(release_id)
                    self._on_change(self.newest())
                    return
        if self._loaded.other_promoted(release_id):
            self._drop(release_id)
            self._on_change(self.newest())

    async def _should_retry(self, release_id: str) -> bool:
        if not self._refused.is_due(release_id):
            return False
        state = await self._thread.run(self._store.state, release_id)
        return self._refused.has_changed(release_id, state)

    async def _load_or_refuse(
        self, release_id: str, replace: bool = False, as_newest: bool = True
    ) -> R | None:
        """Loads a release, and refuses it if that fails.

        Args:
            release_id: The release.
            replace: Whether the release replaces the loaded one with the same id, instead of
                becoming the newest.
            as_newest: Whether the release becomes the newest; one of an experiment does not.

        Returns:
            The release; None if it was refused.
        """
        state: str | None = None
        load = self._load
        try:
            state = await self._thread.run(self._store.state, release_id)
            if self._copies is not None:
                await self._thread.run(self._copies.lock, release_id)
            if self._trial is not None and self._has_alternative:
                digest = await self._thread.run(self._store.manifest_digest, release_id)
                await self._trial.run(release_id, digest, is_serving=bool(self._loaded))
                load = self._load_tried
            release: R = await self._thread.run(_load_in_short_turns, load, release_id)
        except (OSError, MemoryError) as error:
            # The store may be unreachable, or the disk or memory temporarily full.
            self._refuse(release_id, f"{error} (will be retried)", None, error)
        except ArtifactError as error:
            self._refuse(release_id, str(error), state)
        except Exception as error:
            self._refuse(release_id, f"the release cannot be loaded: {error!r}", state, error)
        else:
            self._refused.remove(release_id)
            if replace:
                self._loaded.replace(release)
                self._on_change(self.newest())
            elif as_newest:
                self._make_newest(release)
            else:
                self._loaded.add_for_experiment(release)
                self._poll_log.loaded(release_id)
            await self._thread.run(return_free_memory)
            if self._copies is not None:
                await self._thread.run(self._copies.evict)
            return release
        if self._copies is not None and release_id not in self._loaded:
            self._copies.unlock(release_id)
        return None

    def _refuse(
        self, release_id: str, why: str, state: str | None, error: BaseException | None = None
    ) -> None:
        why = redact(why)  # Callers can read the reasons.
        if self._refused.reasons.get(release_id) != why:
            self.refusals += 1
            _log.error("release_refused", release_id=release_id, why=why, exc_info=error)
        self._refused.add(release_id, why, state)

    def _drop(self, release_id: str) -> None:
        self._loaded.drop(release_id)
        if self._copies is not None:
            self._copies.unlock(release_id)

    def _make_newest(self, release: R) -> None:
        """Adds a release as the newest, and drops unused ones beyond the limit."""
        self._loaded.add_newest(release)
        self._drop_unused()
        self._poll_log.loaded(release.release_id)
        self._on_change(release)

    def _drop_unused(self) -> None:
        """Drops releases beyond the limit, but neither the newest nor those of the experiment."""
        for release_id in self._loaded.beyond(self._keep, self.experiments.release_ids):
            self._drop(release_id)


def _load_in_short_turns(load: Callable[[str], R], release_id: str) -> R:
    """Loads a release, with short turns of the interpreter's lock so that calls wait less."""
    with limit_switch_interval(_LOADING_SWITCH_INTERVAL_S):
        return load(release_id)
